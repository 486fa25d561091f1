#include "blt/model/linear.h"

#include <ATen/ops/ones.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "blt/model/parameters.h"
#include "blt/ops/linear.h"
#include "blt/ops/rms_norm.h"
#include "blt/ops/rms_norm_linears.h"
#include "blt/ops/swiglu.h"
#include "blt/ops/swiglu_linear.h"

namespace blt {

LinearImpl::LinearImpl(int64_t in, int64_t out, std::optional<double> std) {
  weight = register_parameter("weight", new_parameter({out, in}));
  truncated_normal_(weight, std.value_or(1.0 / std::sqrt(static_cast<double>(in))));
}

at::Tensor LinearImpl::forward(const at::Tensor& x) const {
  return packed_ ? ops::packed_linear(x, *packed_) : ops::linear(x, there(weight));
}

at::Tensor LinearImpl::forward_gated(const at::Tensor& gate, const at::Tensor& up) const {
  return packed_ ? ops::packed_linear(ops::swiglu(gate, up), *packed_)
                 : ops::swiglu_linear(gate, up, there(weight));
}

void LinearImpl::freeze_own() {
  weight.requires_grad_(false);
  frozen_ = true;
  packed_ = ops::packed_where_used(weight);
}

RmsNormImpl::RmsNormImpl(int64_t dim, double eps) : eps_(eps) {
  weight = register_parameter("weight", new_parameter({dim}));
  if (!weight.is_meta()) {
    const at::NoGradGuard no_grad;
    weight.fill_(1);
  }
}

at::Tensor RmsNormImpl::forward(const at::Tensor& x) const { return ops::rms_norm(x, there(weight), eps_); }

at::Tensor detail::norm_linears(const RmsNorm& norm, const at::Tensor& x, const at::Tensor& added,
                                std::span<const LinearImpl* const> linears, std::span<at::Tensor> results) {
  if (std::any_of(linears.begin(), linears.end(), [](const LinearImpl* l) { return l->is_frozen(); })) {
    const auto [stream, normed] = added.defined()
                                      ? ops::add_rms_norm(x, added, norm->there(norm->weight), norm->eps())
                                      : ops::NormedSum{x, norm->forward(x)};
    std::transform(linears.begin(), linears.end(), results.begin(),
                   [normed = normed](const LinearImpl* l) { return l->forward(normed); });
    return stream;
  }
  std::vector<at::Tensor> weights;
  for (const LinearImpl* linear : linears) weights.push_back(linear->there(linear->weight));
  auto branch = ops::stream_norm_linears(x, added, norm->there(norm->weight), norm->eps(), weights);
  std::ranges::move(branch.results, results.begin());
  return branch.stream;
}

void freeze(torch::nn::Module& module) {
  module.eval();
  for (at::Tensor& parameter : module.parameters()) parameter.requires_grad_(false);
  module.apply([](torch::nn::Module& child) {
    if (auto* freezable = dynamic_cast<Freezable*>(&child)) freezable->freeze_own();
  });
}

}  // namespace blt
