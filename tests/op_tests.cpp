// The tests that a case stands for. Inputs and weights of gradients come from fixed seeds.
#include "op_tests.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "blt/ops/arithmetic.h"
#include "cuda_emulation/kernels.h"

namespace blt {
namespace {

constexpr uint64_t kInputs = 1, kWeights = 2, kProbes = 3;
constexpr int64_t kMaxProbes = 48;  // central differences in each input

Tensors inputs_of(const OpCase& c) {
  Rng rng(kInputs);
  return c.inputs(rng);
}

Tensors weights_like(const Tensors& outputs) {
  Rng rng(kWeights);
  Tensors result;
  for (const at::Tensor& output : outputs)
    result.push_back(output.is_floating_point() ? rng.normal(output.sizes()).to(output.options())
                                                : at::Tensor());
  return result;
}

// In units of the values' own rounding: `tolerance` where results are as wide as the arithmetic, else one
// rounding to 16 bits (for gradients three more, of what is passed between passes in 16 bits).
double allowed(at::ScalarType dtype, double tolerance, bool gradient) {
  switch (dtype) {
    case at::kDouble:
      return tolerance * std::numeric_limits<double>::epsilon();
    case at::kFloat:
      return tolerance * std::numeric_limits<float>::epsilon();
    case at::kHalf:
      return (gradient ? 4 : 1) * std::ldexp(1.0, -10);
    default:
      return (gradient ? 4 : 1) * std::ldexp(1.0, -7);
  }
}

// floor: what is added to the size of a value that an error is measured by.
void expect_close(const at::Tensor& got, const at::Tensor& expected, double allowed_error,
                  const std::string& what, double floor = 0) {
  ASSERT_EQ(got.sizes(), expected.sizes()) << what;
  if (expected.numel() == 0) return;
  if (!expected.is_floating_point()) {
    EXPECT_TRUE(at::equal(got.cpu().to(at::kLong), expected.cpu().to(at::kLong))) << what;
    return;
  }
  const at::Tensor a = got.detach().cpu().to(at::kDouble), b = expected.detach().cpu().to(at::kDouble);
  // Equal infinities have no error, a NaN has a large one unless both have it.
  const at::Tensor scale = b.abs() + b.square().mean().sqrt() + floor;
  const at::Tensor same = (a == b) | (a.isnan() & b.isnan());
  const at::Tensor error = ((a - b).abs() / (scale + 1e-300)).masked_fill(same, 0).nan_to_num(1e300);
  const int64_t worst = error.flatten().argmax().item<int64_t>();
  EXPECT_LE(error.max().item<double>(), allowed_error)
      << what << ": element " << worst << " of " << expected.sizes() << " is "
      << a.flatten()[worst].item<double>() << ", expected " << b.flatten()[worst].item<double>();
}

// NaN of the same bits are equal here.
bool same_bits(const Tensors& a, const Tensors& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    const at::Tensor x = a[i].detach().contiguous(), y = b[i].detach().contiguous();
    if (x.sizes() != y.sizes() || x.scalar_type() != y.scalar_type()) return false;
    if (x.numel() > 0 && std::memcmp(x.const_data_ptr(), y.const_data_ptr(), x.nbytes()) != 0) return false;
  }
  return true;
}

// The same values, no two neighbours of which lie side by side.
at::Tensor strided(const at::Tensor& x) {
  if (!x.defined() || x.dim() == 0) return x;
  std::vector<int64_t> sizes = x.sizes().vec();
  sizes.push_back(2);
  at::Tensor wide = at::full(sizes, 77, x.options());
  wide.select(-1, 1).copy_(x);
  return wide.select(-1, 1);
}

// Outputs, then gradients of all differentiable inputs.
Tensors run_all(const OpCase& c, const Tensors& inputs, bool strided_weights = false) {
  Tensors result = c.op(inputs);
  if (c.differentiable.empty()) return result;
  Tensors weights = weights_like(result);
  if (strided_weights)
    for (at::Tensor& weight : weights) weight = strided(weight);
  for (const at::Tensor& g : gradients(c.op, inputs, c.differentiable, weights)) result.push_back(g);
  return result;
}

void expect_reference(const OpCase& c, at::ScalarType dtype, at::Device device) {
  const Tensors inputs = convert(inputs_of(c), dtype, device);
  const Tensors exact = convert(inputs, at::kDouble, at::kCPU);
  const Tensors got = c.op(inputs), expected = c.reference(exact);
  ASSERT_EQ(got.size(), expected.size());
  const std::string type = c10::toString(dtype);
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_EQ(got[i].device().type(), device.type());
    const at::ScalarType result_type = got[i].is_floating_point() ? got[i].scalar_type() : dtype;
    expect_close(got[i], expected[i], allowed(result_type, c.tolerance, false),
                 type + " output " + std::to_string(i));
  }
  if (c.differentiable.empty() || !c.reference_gradient) return;
  const Tensors weights = weights_like(got);
  const Tensors got_grads = gradients(c.op, inputs, c.differentiable, weights);
  const Tensors expected_grads =
      gradients(c.reference, exact, c.differentiable, convert(weights, at::kDouble, at::kCPU));
  for (size_t i = 0; i < got_grads.size(); ++i) {
    EXPECT_EQ(got_grads[i].scalar_type(), inputs[c.differentiable[i]].scalar_type());
    // Where terms of order one (as inputs and weights are) cancel, their rounding is what is left.
    expect_close(got_grads[i], expected_grads[i], allowed(dtype, c.gradient_tolerance, true),
                 type + " gradient of input " + std::to_string(c.differentiable[i]), /*floor=*/1);
  }
}

bool has(const OpCase& c, at::ScalarType dtype) {
  return std::find(c.dtypes.begin(), c.dtypes.end(), dtype) != c.dtypes.end();
}

at::ScalarType widest(const OpCase& c) { return has(c, at::kDouble) ? at::kDouble : at::kFloat; }

}  // namespace

TEST_P(OpTest, EqualsReference) {
  for (const at::ScalarType dtype : {at::kDouble, at::kFloat})
    if (has(GetParam(), dtype)) expect_reference(GetParam(), dtype, at::kCPU);
}

TEST_P(OpTest, EqualsReferenceIn16Bits) {
  const OpCase& c = GetParam();
  if (!has(c, at::kHalf) && !has(c, at::kBFloat16)) GTEST_SKIP() << "not for 16-bit types";
  for (const at::ScalarType dtype : {at::kHalf, at::kBFloat16})
    if (has(c, dtype)) expect_reference(c, dtype, at::kCPU);
}

TEST_P(OpTest, GradientsEqualCentralDifferences) {
  const OpCase& c = GetParam();
  if (c.differentiable.empty()) GTEST_SKIP() << "not differentiable";
  if (!has(c, at::kDouble)) GTEST_SKIP() << "needs float64";
  const Tensors inputs = convert(inputs_of(c), at::kDouble, at::kCPU);
  const Tensors weights = weights_like(c.op(inputs));
  const Tensors analytic = gradients(c.op, inputs, c.differentiable, weights);
  // Which outputs count, as in gradients().
  Tensors probe = inputs;
  for (const size_t i : c.differentiable) probe[i] = inputs[i].clone().requires_grad_();
  std::vector<bool> counts;
  for (const at::Tensor& output : c.op(probe)) counts.push_back(output.requires_grad());
  const auto objective = [&](const Tensors& at_point) {
    const Tensors outputs = c.op(at_point);
    double total = 0;
    for (size_t i = 0; i < outputs.size(); ++i)
      if (counts[i]) total += (outputs[i] * weights[i]).sum().item<double>();
    return total;
  };
  Rng rng(kProbes);
  for (size_t i = 0; i < c.differentiable.size(); ++i) {
    const size_t input = c.differentiable[i];
    ASSERT_EQ(analytic[i].sizes(), inputs[input].sizes());
    const int64_t size = inputs[input].numel();
    if (size == 0) continue;
    const double scale = analytic[i].square().mean().sqrt().item<double>();
    for (int64_t n = 0; n < std::min(size, kMaxProbes); ++n) {
      const int64_t element = size <= kMaxProbes ? n : rng.integer(0, size);
      Tensors moved = inputs;
      moved[input] = inputs[input].clone(at::MemoryFormat::Contiguous);
      double* value = moved[input].data_ptr<double>() + element;
      const double middle = *value, step = 1e-5 * std::max(1.0, std::abs(middle));
      *value = middle + step;
      const double above = objective(moved);
      *value = middle - step;
      const double below = objective(moved);
      const double numeric = (above - below) / (2 * step);
      const double got = analytic[i].flatten()[element].item<double>();
      // Rounding: the objective adds up all outputs, so its error grows with their number.
      EXPECT_NEAR(got, numeric, 2e-7 * (std::abs(numeric) + scale) + 1e-9 * std::sqrt(1.0 + std::abs(above)))
          << "element " << element << " of input " << input;
    }
  }
}

TEST_P(OpTest, TakesTensorsThatAreNotContiguous) {
  const OpCase& c = GetParam();
  const Tensors inputs = convert(inputs_of(c), has(c, at::kFloat) ? at::kFloat : widest(c), at::kCPU);
  Tensors views;
  for (const at::Tensor& x : inputs) views.push_back(strided(x));
  const Tensors expected = run_all(c, inputs), got = run_all(c, views, /*strided_weights=*/true);
  if (c.own_sums) {
    EXPECT_TRUE(same_bits(expected, got));
    return;
  }
  ASSERT_EQ(expected.size(), got.size());
  for (size_t i = 0; i < got.size(); ++i) EXPECT_TRUE(at::allclose(expected[i], got[i], 1e-5, 1e-5)) << i;
}

TEST_P(OpTest, MetaHasTheShapesAndTypesOfTheResult) {
  const OpCase& c = GetParam();
  for (const at::ScalarType dtype : c.dtypes) {
    const Tensors inputs = convert(inputs_of(c), dtype, at::kCPU);
    const Tensors real = run_all(c, inputs), meta = run_all(c, convert(inputs, dtype, at::kMeta));
    ASSERT_EQ(real.size(), meta.size());
    for (size_t i = 0; i < real.size(); ++i) {
      EXPECT_TRUE(meta[i].is_meta());
      EXPECT_EQ(real[i].sizes(), meta[i].sizes()) << "output " << i;
      EXPECT_EQ(real[i].strides(), meta[i].strides()) << "output " << i;
      EXPECT_EQ(real[i].scalar_type(), meta[i].scalar_type()) << "output " << i;
    }
  }
}

TEST_P(OpTest, TwoRunsAgreeBitForBit) {
  const OpCase& c = GetParam();
  if (!c.deterministic) GTEST_SKIP() << "not deterministic";
  for (const at::ScalarType dtype : c.dtypes) {
    const Tensors inputs = convert(inputs_of(c), dtype, at::kCPU);
    EXPECT_TRUE(same_bits(run_all(c, inputs), run_all(c, inputs))) << dtype;
  }
}

TEST_P(OpTest, ThreadCountsAgreeBitForBit) {
  const OpCase& c = GetParam();
  if (!c.deterministic || !c.own_sums) GTEST_SKIP() << "not deterministic";
  const int before = at::get_num_threads();
  for (const at::ScalarType dtype : c.dtypes) {
    const Tensors inputs = convert(inputs_of(c), dtype, at::kCPU);
    at::set_num_threads(1);
    const Tensors alone = run_all(c, inputs);
    for (const int threads : {2, 3, 7}) {
      at::set_num_threads(threads);
      EXPECT_TRUE(same_bits(alone, run_all(c, inputs))) << dtype << " on " << threads << " threads";
    }
  }
  at::set_num_threads(before);
}

// What CUDA kernels store.
bool on_cuda(at::ScalarType dtype) { return dtype != at::kDouble; }

TEST_P(OpTest, CudaEqualsReference) {
  const OpCase& c = GetParam();
  if (!at::hasCUDA() || at::getNumGPUs() == 0) GTEST_SKIP() << "no CUDA device";
  ops::sum_products_in_float32();
  try {
    for (const at::ScalarType dtype : c.dtypes)
      if (on_cuda(dtype)) expect_reference(c, dtype, at::kCUDA);
  } catch (const c10::NotImplementedError&) {
    GTEST_SKIP() << "built without a CUDA kernel for it";
  }
}

// The same kernels without a device: tests/cuda_emulation.
TEST_P(OpTest, EmulatedCudaEqualsReference) {
  const OpCase& c = GetParam();
  const emulation::EmulatedCuda cuda;
  for (const at::ScalarType dtype : c.dtypes)
    if (on_cuda(dtype)) expect_reference(c, dtype, at::kCPU);
  if (cuda.launches() == 0) GTEST_SKIP() << "launches no CUDA kernel";
}

TEST_P(OpTest, EmulatedCudaDoesNotDependOnTheOrderOfBlocksAndThreadsNorOnStrides) {
  const OpCase& c = GetParam();
  if (!c.deterministic || !c.own_sums) GTEST_SKIP() << "not deterministic";
  const Tensors inputs = convert(inputs_of(c), has(c, at::kBFloat16) ? at::kBFloat16 : at::kFloat, at::kCPU);
  Tensors views, first;
  for (const at::Tensor& x : inputs) views.push_back(strided(x));
  for (const uint64_t seed : {1, 2, 3}) {
    const emulation::EmulatedCuda cuda(seed);
    const bool as_views = seed == 3;
    const Tensors results = run_all(c, as_views ? views : inputs, /*strided_weights=*/as_views);
    if (cuda.launches() == 0) GTEST_SKIP() << "launches no CUDA kernel";
    if (first.empty()) first = results;
    EXPECT_TRUE(same_bits(first, results)) << "with seed " << seed;
  }
}

}  // namespace blt
