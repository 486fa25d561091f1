// A matrix without bias, which can be frozen for inference.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "blt/model/arriving.h"
#include "blt/ops/packed_linear.h"

namespace blt {

// A module that holds weights of its own which blt::freeze has to prepare.
class Freezable {
 public:
  virtual ~Freezable() = default;
  virtual void freeze_own() = 0;  // not those of the modules below
};

// y = x weight^T. weight [out, in], filled with truncated_normal_(std) (default: in^-0.5).
// Not thread-safe while training; forward of a frozen one may be called from several threads at once.
class LinearImpl : public torch::nn::Module, public Freezable, public Arriving {
 public:
  LinearImpl(int64_t in, int64_t out, std::optional<double> std = std::nullopt);

  at::Tensor forward(const at::Tensor& x) const;  // [N, in] -> [N, out]

  // forward(swiglu(gate, up)), bit for bit; training keeps no activation (ops/swiglu_linear.h). Both [N, in].
  at::Tensor forward_gated(const at::Tensor& gate, const at::Tensor& up) const;

  bool is_frozen() const { return frozen_; }

  // From here on the weight does not change, takes no gradient and stays on its device. On the CPU each row of the result depends on that row
  // of x alone, bit for bit (ops/packed_linear.h), for which a second, packed copy of the weight is kept; elsewhere products are LibTorch's.
  void freeze_own() override;

  at::Tensor weight;

 private:
  bool frozen_ = false;
  std::optional<ops::PackedWeight> packed_;  // frozen on the CPU
};
TORCH_MODULE(Linear);

// A gain per channel after normalising by the root mean square. weight [dim], ones.
class RmsNormImpl : public torch::nn::Module, public Arriving {
 public:
  RmsNormImpl(int64_t dim, double eps);

  at::Tensor forward(const at::Tensor& x) const;  // [N, dim] -> [N, dim]

  double eps() const { return eps_; }

  at::Tensor weight;

 private:
  double eps_;
};
TORCH_MODULE(RmsNorm);

namespace detail {
// Returns the stream, x + added.
at::Tensor norm_linears(const RmsNorm& norm, const at::Tensor& x, const at::Tensor& added,
                        std::span<const LinearImpl* const> linears, std::span<at::Tensor> results);
}  // namespace detail

// linear(norm(x)) of each of `linears`, bit for bit; training keeps no normalised rows (ops/rms_norm_linears.h). x [N, dim].
template <std::same_as<Linear>... Linears>
std::array<at::Tensor, sizeof...(Linears)> norm_linears(const RmsNorm& norm, const at::Tensor& x,
                                                        const Linears&... linears) {
  const std::array<const LinearImpl*, sizeof...(Linears)> pointers = {linears.get()...};
  std::array<at::Tensor, sizeof...(Linears)> results;
  detail::norm_linears(norm, x, {}, pointers, results);
  return results;
}

// What enters a branch of a residual stream: x + added (x where `added` is undefined), and linear(norm(that)) of each of `linears`. Costs a pass
// over memory less, forward and backward, than the sum, norm_linears and the sum of their gradients.
template <size_t kLinears>
struct Branch {
  at::Tensor stream;
  std::array<at::Tensor, kLinears> results;
};
template <std::same_as<Linear>... Linears>
Branch<sizeof...(Linears)> stream_linears(const RmsNorm& norm, const at::Tensor& x, const at::Tensor& added,
                                          const Linears&... linears) {
  const std::array<const LinearImpl*, sizeof...(Linears)> pointers = {linears.get()...};
  Branch<sizeof...(Linears)> branch;
  branch.stream = detail::norm_linears(norm, x, added, pointers, branch.results);
  return branch;
}

// Freezes `module` and everything below it, on the device where it will compute: evaluation mode, no gradients, weights packed on the CPU.
// Again after it was moved.
void freeze(torch::nn::Module& module);

}  // namespace blt
