#pragma once

#include "blt/ops/cross_entropy.h"
#include "op_case.h"

namespace blt {

// Every fifth row has no target.
inline OpCase cross_entropy_case(int64_t T, int64_t V) {
  return {
      .name = "T" + std::to_string(T) + "_V" + std::to_string(V),
      .inputs = [=](Rng& rng) -> Tensors {
        const at::Tensor targets = rng.integer({T}, 0, V);
        targets.slice(0, 0, T, 5).fill_(kIgnore);
        return {rng.normal({T, V}) * 4, targets};
      },
      .op =
          [](const Tensors& in) {
            const ops::CrossEntropy result = ops::cross_entropy(in[0], in[1]);
            return Tensors{result.nll, result.entropy, result.argmax};
          },
      .reference =
          [](const Tensors& in) {
            const at::Tensor log_p = at::log_softmax(in[0], -1);
            const at::Tensor nll = at::nll_loss(log_p, in[1].to(at::kLong), {}, at::Reduction::None, kIgnore);
            const at::Tensor detached = log_p.detach();
            return Tensors{nll, -(detached.exp() * detached).sum(-1), in[0].argmax(-1)};
          },
      .differentiable = {0},
      .bytes_moved = 4.0 * static_cast<double>(T * V),
      .backward_bytes_moved = 8.0 * static_cast<double>(T * V),
  };
}

inline std::vector<OpCase> cross_entropy_bench_cases() { return {cross_entropy_case(4096, kVocabulary)}; }

}  // namespace blt
