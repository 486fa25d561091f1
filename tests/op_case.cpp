#include "op_case.h"

#include <ATen/CPUGeneratorImpl.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <numeric>

namespace blt {

Rng::Rng(uint64_t seed) : generator_(at::make_generator<at::CPUGeneratorImpl>(seed)) {}

at::Tensor Rng::normal(at::IntArrayRef sizes) { return at::randn(sizes, generator_, at::kDouble); }

at::Tensor Rng::uniform(at::IntArrayRef sizes, double low, double high) {
  return at::rand(sizes, generator_, at::kDouble) * (high - low) + low;
}

at::Tensor Rng::integer(at::IntArrayRef sizes, int64_t low, int64_t high) {
  return at::randint(low, high, sizes, generator_, at::kInt);
}

int64_t Rng::integer(int64_t low, int64_t high) { return integer({1}, low, high).item<int32_t>(); }

Segments Rng::segments(int64_t N, int64_t count, bool allow_empty) {
  TORCH_CHECK(allow_empty ? (count > 0 || N == 0) : (count <= N && (count > 0) == (N > 0)), "Rng: ", N,
              " things in ", count, " segments");
  std::vector<int64_t> cuts;  // the inner ones
  if (allow_empty) {
    for (int64_t i = 1; i < count; ++i) cuts.push_back(integer(0, N + 1));
  } else if (N > 1) {
    const at::Tensor order = at::randperm(N - 1, generator_);
    for (int64_t i = 0; i + 1 < count; ++i) cuts.push_back(order[i].item<int64_t>() + 1);
  }
  std::sort(cuts.begin(), cuts.end());
  cuts.push_back(N);
  if (count > 0) std::adjacent_difference(cuts.begin(), cuts.end(), cuts.begin());
  cuts.resize(count);
  return Segments::from_lengths(cuts, allow_empty);
}

at::Tensor Rng::offsets(int64_t N, int64_t count, bool allow_empty) {
  return segments(N, count, allow_empty).offsets;
}

std::string test_name(const std::string& name) {
  std::string result = name;
  for (char& c : result)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  return result;
}

Tensors convert(const Tensors& inputs, at::ScalarType dtype, at::Device device) {
  Tensors result;
  for (const at::Tensor& x : inputs)
    result.push_back(!x.defined() ? x : x.is_floating_point() ? x.to(device, dtype) : x.to(device));
  return result;
}

Tensors gradients(const OpFunction& op, const Tensors& inputs, const std::vector<size_t>& differentiable,
                  const Tensors& weights) {
  Tensors leaves = inputs, wanted;
  for (const size_t i : differentiable) {
    // A view keeps the strides of the input, which a leaf made by clone() would not.
    leaves[i] = inputs[i].detach();
    leaves[i].requires_grad_();
    wanted.push_back(leaves[i]);
  }
  const Tensors outputs = op(leaves);
  Tensors roots, seeds;
  for (size_t i = 0; i < outputs.size(); ++i)
    if (outputs[i].requires_grad()) {
      roots.push_back(outputs[i]);
      seeds.push_back(weights[i]);
    }
  TORCH_CHECK(!roots.empty(), "no output is differentiable");
  return torch::autograd::grad(roots, wanted, seeds);
}

}  // namespace blt
