// Row by row: one pass for the sum, one for the result, the second from the cache. Forward: 8 bytes an
// element move (float), 16 with something added; backward 12, and 16.
#include "ops/rms_norm/cpu_kernel.h"

#include "ops/cpu/tail.h"

namespace blt::ops::BLT_ISA {
namespace {

float sqrt(float x) { return __builtin_sqrtf(x); }
double sqrt(double x) { return __builtin_sqrt(x); }

// Four sums at once hide the latency of an addition.
constexpr int64_t kSums = 4;

// The sum of term(column, how many are left) over a row, grouped by column alone.
template <class T, class Term>
T row_sum(int64_t columns, const Term& term) {
  Vec<T> sums[kSums] = {zeros<T>(), zeros<T>(), zeros<T>(), zeros<T>()};
  int64_t c = 0;
  for (; c + kSums * kLanes<T> <= columns; c += kSums * kLanes<T>)
#pragma GCC unroll 4
    for (int64_t i = 0; i < kSums; ++i) sums[i] += term(c + i * kLanes<T>, static_cast<int64_t>(kLanes<T>));
  for (int64_t i = 0; c < columns; ++i, c += kLanes<T>) sums[i] += term(c, columns - c);
  return sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

}  // namespace

template <class T>
void rms_norm(const RmsNorm<T>& a, int64_t first_row, int64_t last_row) {
  const int64_t columns = a.columns;
  for (int64_t row = first_row; row < last_row; ++row) {
    const T* x = a.x + row * columns;
    T* out = a.out + row * columns;
    if (a.added != nullptr) {
      T* sum = a.sum + row * columns;
      for (int64_t c = 0; c < columns; c += kLanes<T>)
        store_some(sum + c,
                   load_some(x + c, columns - c) + load_some(a.added + row * columns + c, columns - c),
                   columns - c);
      x = sum;
    }
    const T squares = row_sum<T>(columns, [x](int64_t c, int64_t left) {
      const Vec<T> value = load_some(x + c, left);
      return value * value;
    });
    const T inverse = 1 / sqrt(squares / static_cast<T>(columns) + a.eps);
    a.inverse[row] = inverse;
    for (int64_t c = 0; c < columns; c += kLanes<T>)
      store_some(out + c,
                 load_some(a.weight + c, columns - c) * (load_some(x + c, columns - c) * splat(inverse)),
                 columns - c);
  }
}

// With n = x * inverse and g = grad * weight: grad_x = inverse * (g - n * mean(g * n)).
template <class T>
void rms_norm_backward(const RmsNormBackward<T>& b, int64_t first_chunk, int64_t last_chunk) {
  const int64_t columns = b.columns;
  for (int64_t chunk = first_chunk; chunk < last_chunk; ++chunk) {
    T* sums = b.chunk_sums + chunk * columns;
    for (int64_t c = 0; c < columns; c += kLanes<T>) store_some(sums + c, zeros<T>(), columns - c);
    const int64_t end = (chunk + 1) * kNormChunk < b.rows ? (chunk + 1) * kNormChunk : b.rows;
    for (int64_t row = chunk * kNormChunk; row < end; ++row) {
      const T* x = b.x + row * columns;
      const T* grad = b.grad + row * columns;
      const T* weight = b.weight;
      T* grad_x = b.grad_x + row * columns;
      const T inverse = b.inverse[row];
      const T dot = row_sum<T>(columns, [=](int64_t c, int64_t left) {
        return load_some(grad + c, left) * load_some(weight + c, left) * load_some(x + c, left);
      });
      const Vec<T> shift = splat(inverse * inverse * (dot / static_cast<T>(columns)));
      for (int64_t c = 0; c < columns; c += kLanes<T>) {
        const int64_t left = columns - c;
        const Vec<T> g = load_some(grad + c, left), value = load_some(x + c, left);
        Vec<T> result = splat(inverse) * (g * load_some(weight + c, left) - value * shift);
        if (b.stream != nullptr) result += load_some(b.stream + row * columns + c, left);
        store_some(grad_x + c, result, left);
        store_some(sums + c, load_some(sums + c, left) + g * (value * splat(inverse)), left);
      }
    }
  }
}

template <class T>
void rms_norm_grad_weight(const RmsNormBackward<T>& b, int64_t first_column, int64_t last_column) {
  const int64_t chunks = (b.rows + kNormChunk - 1) / kNormChunk;
  for (int64_t c = first_column; c < last_column; c += kLanes<T>) {
    const int64_t left = last_column - c;
    Vec<T> total = zeros<T>();
    for (int64_t chunk = 0; chunk < chunks; ++chunk)
      total += load_some(b.chunk_sums + chunk * b.columns + c, left);
    store_some(b.grad_weight + c, total, left);
  }
}

template void rms_norm(const RmsNorm<float>&, int64_t, int64_t);
template void rms_norm(const RmsNorm<double>&, int64_t, int64_t);
template void rms_norm_backward(const RmsNormBackward<float>&, int64_t, int64_t);
template void rms_norm_backward(const RmsNormBackward<double>&, int64_t, int64_t);
template void rms_norm_grad_weight(const RmsNormBackward<float>&, int64_t, int64_t);
template void rms_norm_grad_weight(const RmsNormBackward<double>&, int64_t, int64_t);

}  // namespace blt::ops::BLT_ISA
