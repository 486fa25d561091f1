#include <ATen/TensorOperators.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <cmath>

#include "train/update_rule.h"

namespace blt {
namespace {

constexpr double kUpdateSize =
    0.2;  // the root mean square of what AdamW moves an element by, over the learning rate

class Muon : public UpdateRule {
 public:
  explicit Muon(const OptimizerConfig& config) : config_(config.muon) {}

  std::vector<Kept> kept(bool) const override { return {{.name = "momentum"}}; }

  void step(const std::vector<Update>& updates, const ClipResult& clip) const override {
    const at::Tensor is_finite = clip.found_inf == 0;
    for (const Update& update : updates) {
      TORCH_CHECK(update.gradient.defined() && update.gradient.dim() == 2, "muon moves whole matrices, and ",
                  update.name, " is none");
      at::Tensor target = update.target, momentum = update.state[0];
      const at::Tensor gradient = update.gradient * clip.scale;
      const at::Tensor next = momentum * config_.momentum + gradient;
      const at::Tensor direction = orthogonalized(next * config_.momentum + gradient, config_.iterations);
      const auto longer = static_cast<double>(std::max(target.size(0), target.size(1)));
      const double rate = update.learning_rate * kUpdateSize * std::sqrt(longer);
      const at::Tensor moved = target * (1 - update.learning_rate * update.weight_decay) - direction * rate;
      momentum.copy_(at::where(is_finite, next, momentum));
      target.copy_(at::where(is_finite, moved, target));
    }
  }

 private:
  MuonConfig config_;
};

}  // namespace

at::Tensor orthogonalized(const at::Tensor& matrix, int64_t steps) {
  constexpr double kA = 3.4445, kB = -4.7750, kC = 2.0315;  // the quintic a x + b x^3 + c x^5
  const bool tall = matrix.size(0) > matrix.size(1);        // the products are of the shorter side
  at::Tensor x = tall ? matrix.t() : matrix;
  x = x / (x.norm() + 1e-7);
  for (int64_t i = 0; i < steps; ++i) {
    const at::Tensor a = at::mm(x, x.t());
    x = x * kA + at::mm(a * kB + at::mm(a, a) * kC, x);
  }
  return tall ? x.t() : x;
}

std::unique_ptr<UpdateRule> make_muon(const OptimizerConfig& config) {
  return std::make_unique<Muon>(config);
}

}  // namespace blt
