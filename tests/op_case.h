// One case of an operator, written once: the tests (op_tests.h) and the benchmark (bench/ops.cpp) are derived
// from it. Makers of cases live in tests/ops/<op>_cases.h.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "blt/batch.h"

namespace blt {

using Tensors = std::vector<at::Tensor>;

// Seeded random tensors for tests: equal seeds give equal values on one machine. Not thread-safe.
class Rng {
 public:
  explicit Rng(uint64_t seed);

  at::Tensor normal(at::IntArrayRef sizes);                                    // float64, mean 0, deviation 1
  at::Tensor uniform(at::IntArrayRef sizes, double low = 0, double high = 1);  // float64 in [low, high)
  at::Tensor integer(at::IntArrayRef sizes, int64_t low, int64_t high);        // int32 in [low, high)
  int64_t integer(int64_t low, int64_t high);                                  // one of [low, high)
  // N things cut at random places into `count` segments, none empty unless allowed.
  Segments segments(int64_t N, int64_t count, bool allow_empty = false);
  at::Tensor offsets(int64_t N, int64_t count, bool allow_empty = false);  // their offsets

 private:
  at::Generator generator_;
};

// A function of tensors to one tensor or to several.
class OpFunction {
 public:
  OpFunction() = default;
  template <class F>
  requires(!std::is_same_v<std::decay_t<F>, OpFunction>) OpFunction(F function) {
    if constexpr (std::is_convertible_v<std::invoke_result_t<F, const Tensors&>, at::Tensor>)
      function_ = [f = std::move(function)](const Tensors& in) { return Tensors{f(in)}; };
    else
      function_ = std::move(function);
  }
  Tensors operator()(const Tensors& in) const { return function_(in); }

 private:
  std::function<Tensors(const Tensors&)> function_;
};

// Segments belong into the captures of `op` and `reference`, made with the case and moved to the device of
// the inputs by `op` (segments.to(in[0].device())): then shapes can be asked for without data.
struct OpCase {
  std::string name;                     // unlike the names of the suite's other cases
  std::function<Tensors(Rng&)> inputs;  // on the CPU, floating ones as float64: the tests turn them into each
                                        // dtype and onto each device
  OpFunction op;         // under test; what it needs in one dtype whatever its inputs are, it converts
  OpFunction reference;  // the same in plain tensor algebra; is given float64 values of the inputs and must
                         // be differentiable by LibTorch

  std::vector<at::ScalarType> dtypes = {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16};
  // Inputs that the op is differentiable in; the first outputs that a gradient comes from are found by
  // whether they require one.
  std::vector<size_t> differentiable = {};
  bool reference_gradient = true;  // false where a derivative is a choice (ties): central differences only
  // Allowed error in units of the dtype's rounding (float32 and float64; 16-bit results are rounded once more),
  // relative to |expected| + the root mean square of the expected tensor.
  double tolerance = 32;
  double gradient_tolerance = 64;
  bool deterministic = true;  // bit for bit: two runs, and any number of threads
  bool own_sums =
      true;  // false where a matrix library sums: in another order for other numbers of threads and other strides

  // For the benchmark, with 4-byte elements: what has to be read and written, and arithmetic where that is the
  // bound. backward_*: of the backward pass alone; 0 and 0 where it is not timed.
  double bytes_moved = 0;
  double flops = 0;
  double backward_bytes_moved = 0;
  double backward_flops = 0;
};

// `name` with everything but letters, digits and _ replaced: what GoogleTest takes as a name.
std::string test_name(const std::string& name);
// The floating ones in `dtype`, all on `device`.
Tensors convert(const Tensors& inputs, at::ScalarType dtype, at::Device device);
// The gradients of sum(outputs * weights) in the inputs `differentiable`, over the outputs that require one.
Tensors gradients(const OpFunction& op, const Tensors& inputs, const std::vector<size_t>& differentiable,
                  const Tensors& weights);

}  // namespace blt
