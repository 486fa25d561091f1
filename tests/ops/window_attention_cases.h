// Cases of window_attention.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "blt/ops/window_attention.h"
#include "op_case.h"

namespace blt {

// The whole score matrix, masked.
inline at::Tensor dense_window_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                         const Segments& documents, int64_t window, double scale) {
  const int64_t group = q.size(1) / k.size(1);
  const at::Tensor keys = k.repeat_interleave(group, 1), values = v.repeat_interleave(group, 1);
  const at::Tensor ids = documents.ids(), places = at::arange(q.size(0));
  const at::Tensor back = places.unsqueeze(1) - places.unsqueeze(0);  // [T, T] i - j
  at::Tensor hidden = (ids.unsqueeze(1) != ids.unsqueeze(0)) | (back < 0);
  if (window > 0) hidden = hidden | (back >= window);
  const at::Tensor scores = at::einsum("qhe,khe->hqk", {q, keys}) * scale;
  const at::Tensor weights = scores.masked_fill(hidden, -std::numeric_limits<double>::infinity()).softmax(-1);
  return at::einsum("hqk,khe->qhe", {weights, values});
}

inline OpCase window_attention_case(const std::vector<int64_t>& lengths, int64_t H, int64_t Hkv, int64_t E,
                                    int64_t window) {
  const Segments documents = Segments::from_lengths(lengths);
  const double scale = 1.0 / std::sqrt(static_cast<double>(E));
  OpCase c;
  c.name = "T" + std::to_string(documents.total) + " D" + std::to_string(documents.count) + " H" +
           std::to_string(H) + " Hkv" + std::to_string(Hkv) + " E" + std::to_string(E) + " window" +
           std::to_string(window);
  c.inputs = [=](Rng& rng) -> Tensors {
    return {rng.normal({documents.total, H, E}), rng.normal({documents.total, Hkv, E}),
            rng.normal({documents.total, Hkv, E})};
  };
  c.op = [=](const Tensors& in) {
    return ops::window_attention(in[0], in[1], in[2], documents.to(in[0].device()), window, scale);
  };
  c.reference = [=](const Tensors& in) {
    return dense_window_attention(in[0], in[1], in[2], documents, window, scale);
  };
  c.differentiable = {0, 1, 2};
  c.bytes_moved = 4.0 * static_cast<double>((2 * H + 2 * Hkv) * documents.total * E);
  for (const int64_t length : lengths)  // pairs of a query and a key that it sees, two products each
    for (int64_t i = 0; i < length; ++i)
      c.flops += 4.0 * H * E * static_cast<double>(window > 0 ? std::min(window, i + 1) : i + 1);
  // Five products instead of two; q, k, v, out, grad and three gradients.
  c.backward_flops = 2.5 * c.flops;
  c.backward_bytes_moved = 2 * c.bytes_moved;
  return c;
}

// The local layers of the shape `small`, its latent layers (910 patches), and the local layers of 1B.
inline std::vector<OpCase> window_attention_bench_cases() {
  return {window_attention_case({1024, 1024, 1024, 1024}, 4, 4, 64, 512),
          window_attention_case({4096}, 4, 4, 64, 512),
          window_attention_case({228, 228, 227, 227}, 8, 8, 64, 0),
          window_attention_case({910}, 8, 8, 64, 0),
          window_attention_case({4096}, 2, 2, 32, 128),
          window_attention_case({8192}, 16, 16, 64, 512)};
}

}  // namespace blt
