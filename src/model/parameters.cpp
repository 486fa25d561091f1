#include "blt/model/parameters.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <cmath>

namespace blt {
namespace {

thread_local bool make_meta_parameters = false;

}  // namespace

MetaParameters::MetaParameters() : before_(make_meta_parameters) { make_meta_parameters = true; }
MetaParameters::~MetaParameters() { make_meta_parameters = before_; }

at::Tensor new_parameter(at::IntArrayRef sizes) {
  return at::empty(sizes,
                   at::TensorOptions().dtype(at::kFloat).device(make_meta_parameters ? at::kMeta : at::kCPU));
}

void truncated_normal_(const at::Tensor& parameter, double std) {
  if (parameter.is_meta()) return;
  const at::NoGradGuard no_grad;
  // The inverse of the distribution function, over the part of its range that lies within +-3 std. In place:
  // tables are large.
  const double tail = std::erf(3.0 / std::sqrt(2.0));
  parameter.uniform_(-tail, tail).erfinv_().mul_(std * std::sqrt(2.0)).clamp_(-3.0 * std, 3.0 * std);
}

}  // namespace blt
