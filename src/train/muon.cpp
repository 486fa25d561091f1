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

  void step(const std::vector<Update>& updates, const ClipResult& clip,
            const WholeMatrices& matrices) const override {
    const at::Tensor is_finite = clip.found_inf == 0;
    std::vector<MatrixTask> tasks;
    for (const Update& update : updates) {
      TORCH_CHECK(update.rows == nullptr && update.sizes.size() == 2, "muon moves matrices, and ",
                  update.name, " is none");
      tasks.push_back({.name = update.name,
                       .sizes = update.sizes,
                       .part = [&] { return direction_of(update, clip.scale, is_finite); },
                       .take = [&](const at::Tensor& direction) { move(update, direction, is_finite); }});
    }
    matrices.apply(tasks,
                   [&](const at::Tensor& matrix) { return orthogonalized(matrix, config_.iterations); });
  }

 private:
  // Where the momentum leads next (Nesterov's), element by element; the momentum is there afterwards.
  at::Tensor direction_of(const Update& update, const at::Tensor& scale, const at::Tensor& is_finite) const {
    at::Tensor momentum = update.state[0];
    const at::Tensor gradient = update.gradient * scale;
    const at::Tensor next = momentum * config_.momentum + gradient;
    momentum.copy_(at::where(is_finite, next, momentum));
    return next * config_.momentum + gradient;
  }

  static void move(const Update& update, const at::Tensor& direction, const at::Tensor& is_finite) {
    at::Tensor target = update.target;
    const auto longer = static_cast<double>(std::max(update.sizes[0], update.sizes[1]));
    const double rate = update.learning_rate * kUpdateSize * std::sqrt(longer);
    const at::Tensor moved = target * (1 - update.learning_rate * update.weight_decay) - direction * rate;
    target.copy_(at::where(is_finite, moved, target));
  }

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

int64_t orthogonalizing_elements(int64_t out, int64_t in) {
  // The matrix, x, and of a step kA x, the product and their sum; a, and of the term in brackets all four.
  const int64_t shorter = std::min(out, in);
  return 5 * out * in + 5 * shorter * shorter;
}

std::unique_ptr<UpdateRule> make_muon(const OptimizerConfig& config) {
  return std::make_unique<Muon>(config);
}

}  // namespace blt
