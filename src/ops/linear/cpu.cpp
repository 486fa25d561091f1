// Products on the CPU: MKL's or oneDNN's, both inside LibTorch.
//
// at::mm takes MKL for float32. On AMD's processors that reaches 70 to 80 % of what the cores can do, oneDNN 90 % where the left
// operand lies row by row (forward and the gradient of the input), but less than MKL where it is transposed (the gradient of the
// weight): docs/kernels.md. oneDNN is reached through the operator that LibTorch's own compiler emits.
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/mm.h>
#include <torch/library.h>

#include <optional>
#include <string_view>

namespace blt::ops {
namespace {

using at::Tensor;

using OneDnnLinear = Tensor(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias,
                            std::string_view activation, c10::List<std::optional<at::Scalar>> scalars,
                            std::optional<std::string_view> algorithm);

bool is_amd() {
#if defined(__x86_64__)
  return __builtin_cpu_is("amd") != 0;
#else
  return false;
#endif
}

// None in a LibTorch that was built without oneDNN.
std::optional<c10::TypedOperatorHandle<OneDnnLinear>> find_one_dnn_linear() {
  const auto found = c10::Dispatcher::singleton().findSchema({"mkldnn::_linear_pointwise", ""});
  if (!found || !is_amd()) return std::nullopt;
  return found->typed<OneDnnLinear>();
}

constexpr int64_t kWorthFlops = 1 << 26;  // below, oneDNN's longer way in costs what it saves

Tensor product(const Tensor& a, const Tensor& b) {
  static const auto one_dnn_linear = find_one_dnn_linear();
  if (one_dnn_linear && a.scalar_type() == at::kFloat && a.is_contiguous() &&
      2 * a.numel() * b.size(1) >= kWorthFlops)
    return one_dnn_linear->call(a, b.t(), std::nullopt, "none", c10::List<std::optional<at::Scalar>>(),
                                std::nullopt);
  return at::mm(a, b);
}

TORCH_LIBRARY_IMPL(blt, CPU, m) { m.impl("product", product); }

}  // namespace
}  // namespace blt::ops
