#include "blt/train/loss_guard.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <string>

#include "blt/base/error.h"

namespace blt {
namespace {

// The shortest text that reads back equal.
std::string exact(const at::Tensor& number) { return fmt::format("{}", number.item<double>()); }

at::Tensor number(const StateReader& in, const char* key) {
  const std::string text = in.text(key);
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size())
    throw Error(fmt::format("the saved state's {} of the loss is no number: {}", key, text));
  return at::scalar_tensor(value, at::kDouble);
}

}  // namespace

at::Tensor LossGuard::see(const at::Tensor& loss) {
  const at::Tensor now = loss.detach().to(at::kDouble);
  if (!count_.defined()) count_ = mean_ = variance_ = at::zeros({}, now.options());
  for (at::Tensor* kept : {&count_, &mean_, &variance_}) *kept = kept->to(now.device());
  const at::Tensor above = now - mean_;
  const at::Tensor spike = count_.ge(config_.window)
                               .logical_and(above > config_.deviations * variance_.sqrt())
                               .logical_and(now.isfinite());
  at::Tensor counts = now.isfinite();
  if (masks()) counts = counts.logical_and(spike.logical_not());
  const at::Tensor count = count_ + 1;
  const at::Tensor weight = count.reciprocal().clamp_min(1.0 / static_cast<double>(config_.window));
  mean_ = at::where(counts, mean_ + weight * above, mean_);
  variance_ = at::where(counts, (1 - weight) * (variance_ + weight * above * above), variance_);
  count_ = at::where(counts, count, count_);
  return spike;
}

double LossGuard::mean() const { return mean_.defined() ? mean_.item<double>() : 0; }
double LossGuard::deviation() const { return variance_.defined() ? std::sqrt(variance_.item<double>()) : 0; }

void LossGuard::save(StateWriter& out) const {
  out.put("seen", count_.defined() ? 1 : 0);
  if (!count_.defined()) return;
  out.put("count", exact(count_));
  out.put("mean", exact(mean_));
  out.put("variance", exact(variance_));
}

void LossGuard::load(const StateReader& in) {
  count_ = mean_ = variance_ = at::Tensor();
  if (in.integer("seen") == 0) return;
  count_ = number(in, "count");
  mean_ = number(in, "mean");
  variance_ = number(in, "variance");
}

}  // namespace blt
