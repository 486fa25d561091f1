// Vectors of 64 bytes (16 floats, 8 doubles) for CPU kernels, the same width on every instruction set, so
// that sums are grouped alike everywhere; only `fma` rounds differently where the machine has no fused
// multiply-add.
//
// For kernel files alone (src/ops/cpu/dispatch.h), which are compiled once per instruction set. Everything
// here lives in namespace BLT_ISA. A kernel file includes no standard header that brings inline functions or
// templates (<algorithm>, <cmath>, <vector>, …): the linker keeps one copy of those, which may be the one
// made of AVX-512 instructions. Use the __builtin_ functions instead.
#pragma once

#include <stdint.h>

#ifdef __AVX__
#include <immintrin.h>
#endif

namespace blt::ops::BLT_ISA {

// A vector is some registers of the machine's own width: compilers keep those in registers, but spill wider
// "generic" vectors.
#if defined(__AVX512F__)
constexpr int kRegisterBytes = 64;
#elif defined(__AVX__)
constexpr int kRegisterBytes = 32;
#else
constexpr int kRegisterBytes = 16;
#endif
constexpr int kVectorBytes = 64;
constexpr int kRegisters = kVectorBytes / kRegisterBytes;  // per vector

template <class T>
struct Register;
template <>
struct Register<float> {
  typedef float Values __attribute__((vector_size(kRegisterBytes)));
  typedef int32_t Bits __attribute__((vector_size(kRegisterBytes)));
};
template <>
struct Register<double> {
  typedef double Values __attribute__((vector_size(kRegisterBytes)));
  typedef int64_t Bits __attribute__((vector_size(kRegisterBytes)));
};

// Lane i is lane place(i) of x and y, counted through both; `place` must be known to the compiler.
template <class T, class Place>
inline typename Register<T>::Values shuffled(const typename Register<T>::Values& x,
                                             const typename Register<T>::Values& y, const Place& place) {
  constexpr int kLanesOfOne = kRegisterBytes / static_cast<int>(sizeof(T));
#ifdef __clang__  // has no __builtin_shuffle
  typename Register<T>::Values result;
  for (int i = 0; i < kLanesOfOne; ++i)
    result[i] = place(i) < kLanesOfOne ? x[place(i)] : y[place(i) - kLanesOfOne];
  return result;
#else
  typename Register<T>::Bits places;
#pragma GCC unroll 16
  for (int i = 0; i < kLanesOfOne; ++i) places[i] = place(i);
  return __builtin_shuffle(x, y, places);
#endif
}

template <class T>
constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(T));

template <class T>
struct Vec {
  using Values = typename Register<T>::Values;
  static constexpr int kPerRegister = kRegisterBytes / static_cast<int>(sizeof(T));
  Values r[kRegisters];

  T operator[](int lane) const { return r[lane / kPerRegister][lane % kPerRegister]; }
  void set(int lane, T value) { r[lane / kPerRegister][lane % kPerRegister] = value; }
};

// What the compiler unrolls: f(register index) for each register of a vector.
#define BLT_EACH_REGISTER(i) _Pragma("GCC unroll 4") for (int i = 0; i < kRegisters; ++i)

template <class T>
inline Vec<T> splat(T value) {
  Vec<T> result;
  BLT_EACH_REGISTER(i) result.r[i] = value - typename Vec<T>::Values{};  // x - 0 is x, -0 and NaN included
  return result;
}

template <class T>
inline Vec<T> zeros() {
  Vec<T> result;
  BLT_EACH_REGISTER(i) result.r[i] = typename Vec<T>::Values{};
  return result;
}

// {0, 1, 2, …}
template <class T>
inline Vec<T> iota() {
  Vec<T> result = zeros<T>();
  for (int lane = 0; lane < kLanes<T>; ++lane) result.set(lane, static_cast<T>(lane));
  return result;
}

// No alignment is asked for.
template <class T>
inline Vec<T> load(const T* from) {
  Vec<T> result;
  BLT_EACH_REGISTER(i) __builtin_memcpy(&result.r[i], from + i * Vec<T>::kPerRegister, kRegisterBytes);
  return result;
}

template <class T>
inline void store(T* to, const Vec<T>& value) {
  BLT_EACH_REGISTER(i) __builtin_memcpy(to + i * Vec<T>::kPerRegister, &value.r[i], kRegisterBytes);
}

// The first `count` (0 to kLanes) lanes alone; nothing beyond them is touched. Lanes that are not loaded hold
// `rest`.
template <class T>
inline Vec<T> load(const T* from, int64_t count, T rest = 0) {
  Vec<T> result = splat(rest);
#ifdef __AVX512F__
  if constexpr (sizeof(T) == 4)
    result.r[0] = _mm512_mask_loadu_ps(result.r[0], static_cast<__mmask16>((1u << count) - 1), from);
  else
    result.r[0] = _mm512_mask_loadu_pd(result.r[0], static_cast<__mmask8>((1u << count) - 1), from);
#else
  alignas(kVectorBytes) T lanes[kLanes<T>];
  store(lanes, result);
  for (int64_t lane = 0; lane < count; ++lane) lanes[lane] = from[lane];
  result = load(lanes);
#endif
  return result;
}

template <class T>
inline void store(T* to, const Vec<T>& value, int64_t count) {
#ifdef __AVX512F__
  if constexpr (sizeof(T) == 4)
    _mm512_mask_storeu_ps(to, static_cast<__mmask16>((1u << count) - 1), value.r[0]);
  else
    _mm512_mask_storeu_pd(to, static_cast<__mmask8>((1u << count) - 1), value.r[0]);
#else
  alignas(kVectorBytes) T lanes[kLanes<T>];
  store(lanes, value);
  for (int64_t lane = 0; lane < count; ++lane) to[lane] = lanes[lane];
#endif
}

#define BLT_VEC_OPERATOR(op)                                    \
  template <class T>                                            \
  inline Vec<T> operator op(const Vec<T>& a, const Vec<T>& b) { \
    Vec<T> result;                                              \
    BLT_EACH_REGISTER(i) result.r[i] = a.r[i] op b.r[i];        \
    return result;                                              \
  }                                                             \
  template <class T>                                            \
  inline Vec<T>& operator op##=(Vec<T>& a, const Vec<T>& b) {   \
    BLT_EACH_REGISTER(i) a.r[i] = a.r[i] op b.r[i];             \
    return a;                                                   \
  }
BLT_VEC_OPERATOR(+)
BLT_VEC_OPERATOR(-)
BLT_VEC_OPERATOR(*)
BLT_VEC_OPERATOR(/)
#undef BLT_VEC_OPERATOR

template <class T>
inline Vec<T> operator-(const Vec<T>& a) {
  Vec<T> result;
  BLT_EACH_REGISTER(i) result.r[i] = -a.r[i];
  return result;
}

// a * b + c, rounded once where the machine can. (Nothing else is fused: kernels are compiled with
// -ffp-contract=off, so that an expression rounds alike wherever it is inlined.)
template <class T>
inline Vec<T> fma(const Vec<T>& a, const Vec<T>& b, const Vec<T>& c) {
  Vec<T> result;
  BLT_EACH_REGISTER(i) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4)
      result.r[i] = _mm512_fmadd_ps(a.r[i], b.r[i], c.r[i]);
    else
      result.r[i] = _mm512_fmadd_pd(a.r[i], b.r[i], c.r[i]);
#elif defined(__FMA__)
    if constexpr (sizeof(T) == 4)
      result.r[i] = _mm256_fmadd_ps(a.r[i], b.r[i], c.r[i]);
    else
      result.r[i] = _mm256_fmadd_pd(a.r[i], b.r[i], c.r[i]);
#else
    result.r[i] = a.r[i] * b.r[i] + c.r[i];
#endif
  }
  return result;
}

// The scalar of the same rounding.
template <class T>
inline T fma(T a, T b, T c) {
#ifdef __FMA__
  if constexpr (sizeof(T) == 4)
    return __builtin_fmaf(a, b, c);
  else
    return __builtin_fma(a, b, c);
#else
  return a * b + c;
#endif
}

// Lane by lane: a < b ? x : y.
template <class T>
inline Vec<T> select_less(const Vec<T>& a, const Vec<T>& b, const Vec<T>& x, const Vec<T>& y) {
  Vec<T> result;
  BLT_EACH_REGISTER(i) result.r[i] = a.r[i] < b.r[i] ? x.r[i] : y.r[i];
  return result;
}

// The larger; b where either is NaN (and where both are equal).
template <class T>
inline Vec<T> max(const Vec<T>& a, const Vec<T>& b) {
  Vec<T> result;
  BLT_EACH_REGISTER(i) result.r[i] = a.r[i] > b.r[i] ? a.r[i] : b.r[i];
  return result;
}

// The smaller; b where either is NaN.
template <class T>
inline Vec<T> min(const Vec<T>& a, const Vec<T>& b) {
  Vec<T> result;
  BLT_EACH_REGISTER(i) result.r[i] = a.r[i] < b.r[i] ? a.r[i] : b.r[i];
  return result;
}

// All lanes added, halves first: ((0 + 8) + (4 + 12)) + …, in this order everywhere.
template <class T>
inline T sum(const Vec<T>& value) {
  alignas(kVectorBytes) T lanes[kLanes<T>];
  store(lanes, value);
  for (int half = kLanes<T> / 2; half > 0; half /= 2)
    for (int lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
  return lanes[0];
}

// The largest lane. Not for NaN.
template <class T>
inline T max_lane(const Vec<T>& value) {
  alignas(kVectorBytes) T lanes[kLanes<T>];
  store(lanes, value);
  for (int half = kLanes<T> / 2; half > 0; half /= 2)
    for (int lane = 0; lane < half; ++lane)
      lanes[lane] = lanes[lane] > lanes[lane + half] ? lanes[lane] : lanes[lane + half];
  return lanes[0];
}

// e^x within 2 units in the last place: 0 for -inf, inf past 88.73, NaN for NaN, subnormal results included.
inline Vec<float> exp(const Vec<float>& x) {
  using Values = Register<float>::Values;
  Vec<float> n, result;
  BLT_EACH_REGISTER(i) {
    Values v = x.r[i];
    v = v > 89.0f ? Values{} + 89.0f : v;     // where e^x is inf, and the arithmetic below still holds
    v = v < -105.0f ? Values{} - 105.0f : v;  // where e^x is 0
    // Adding 1.5 * 2^23 rounds to the nearest integer.
    n.r[i] = (v * 1.44269504f + 12582912.0f) - 12582912.0f;
    result.r[i] = v;
  }
  // x = n log(2) + r. The first part of log(2) has 9 bits, so that n times it is exact.
  Vec<float> r = fma(n, splat(-0.693359375f), result);
  r = fma(n, splat(2.12194440e-4f), r);
  // (e^r - 1 - r) / r^2 on |r| <= log(2) / 2: a minimax fit, relative error 5e-11 of e^r.
  Vec<float> p = splat(1.97902984e-4f);
  p = fma(p, r, splat(1.39447037e-3f));
  p = fma(p, r, splat(8.33349734e-3f));
  p = fma(p, r, splat(4.16662944e-2f));
  p = fma(p, r, splat(1.66666659e-1f));
  p = fma(p, r, splat(5.00000007e-1f));
  p = fma(p, r * r, r) + splat(1.0f);
  BLT_EACH_REGISTER(i) {
#ifdef __AVX512F__
    result.r[i] = _mm512_maskz_scalef_ps(0xffff, p.r[i], n.r[i]);  // (unmasked, GCC 12 warns)
#else
    // p * 2^n in two exact halves and one rounding, as scalef does: 2^n alone may be out of range.
    using Bits = Register<float>::Bits;
    const Bits exponent = __builtin_convertvector(n.r[i], Bits);
    const Bits half = exponent >> 1;
    result.r[i] = p.r[i] * (Values)((half + 127) << 23) * (Values)((exponent - half + 127) << 23);
#endif
  }
  return result;
}

// Plain, lane by lane: doubles are for tests of derivatives.
inline Vec<double> exp(const Vec<double>& x) {
  Vec<double> result = x;
  for (int lane = 0; lane < kLanes<double>; ++lane) result.set(lane, __builtin_exp(x[lane]));
  return result;
}

}  // namespace blt::ops::BLT_ISA
