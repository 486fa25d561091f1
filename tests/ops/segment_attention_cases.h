// Cases of segment_attention.
#pragma once

#include <cmath>
#include <utility>

#include "blt/ops/segment_attention.h"
#include "op_case.h"

namespace blt {

// The whole score matrix, masked.
inline at::Tensor dense_segment_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                          const Segments& q_segments, const Segments& k_segments,
                                          double scale) {
  const int64_t group = q.size(1) / k.size(1);
  const at::Tensor keys = k.repeat_interleave(group, 1), values = v.repeat_interleave(group, 1);
  const at::Tensor other = q_segments.ids().unsqueeze(1) != k_segments.ids().unsqueeze(0);  // [Nq, Nk]
  const at::Tensor scores = at::einsum("qhe,khe->hqk", {q, keys}) * scale;
  const at::Tensor weights = scores.masked_fill(other, -std::numeric_limits<double>::infinity()).softmax(-1);
  return at::einsum("hqk,khe->qhe", {weights, values});
}

inline OpCase segment_attention_case(const std::string& name, const Segments& q_segments,
                                     const Segments& k_segments, int64_t H, int64_t Hkv, int64_t E) {
  const double scale = 1.0 / std::sqrt(static_cast<double>(E));
  OpCase c;
  c.name = name + " H" + std::to_string(H) + " Hkv" + std::to_string(Hkv) + " E" + std::to_string(E);
  c.inputs = [=](Rng& rng) -> Tensors {
    return {rng.normal({q_segments.total, H, E}), rng.normal({k_segments.total, Hkv, E}),
            rng.normal({k_segments.total, Hkv, E})};
  };
  c.op = [=](const Tensors& in) {
    const auto device = in[0].device();
    return ops::segment_attention(in[0], in[1], in[2], q_segments.to(device), k_segments.to(device), scale);
  };
  c.reference = [=](const Tensors& in) {
    return dense_segment_attention(in[0], in[1], in[2], q_segments, k_segments, scale);
  };
  c.differentiable = {0, 1, 2};
  // Backward: q, grad, out and grad_q; k, v and their gradients.
  const int64_t q_values = q_segments.total * H * E, k_values = k_segments.total * Hkv * E;
  c.bytes_moved = 4.0 * static_cast<double>(2 * q_values + 2 * k_values);
  c.backward_bytes_moved = 4.0 * static_cast<double>(4 * q_values + 4 * k_values);
  return c;
}

// The encoder's direction: `slots` queries a patch see the patch's bytes.
inline OpCase encoder_attention_case(int64_t bytes, int64_t patches, int64_t slots, int64_t H, int64_t Hkv,
                                     int64_t E) {
  Rng rng(7);
  return segment_attention_case("encoder " + std::to_string(bytes) + " bytes " + std::to_string(patches) +
                                    " patches k" + std::to_string(slots),
                                Segments::uniform(patches, slots, at::kCPU), rng.segments(bytes, patches), H,
                                Hkv, E);
}

// The decoder's direction: the bytes of a run (some are empty) see the `slots` keys of their latent.
inline OpCase decoder_attention_case(int64_t bytes, int64_t patches, int64_t slots, int64_t H, int64_t Hkv,
                                     int64_t E) {
  Rng rng(8);
  return segment_attention_case("decoder " + std::to_string(bytes) + " bytes " + std::to_string(patches) +
                                    " patches k" + std::to_string(slots),
                                rng.segments(bytes, patches, /*allow_empty=*/true),
                                Segments::uniform(patches, slots, at::kCPU), H, Hkv, E);
}

inline std::vector<OpCase> segment_attention_bench_cases() {
  return {encoder_attention_case(4096, 910, 2, 4, 4, 64), decoder_attention_case(4096, 910, 2, 4, 4, 64),
          encoder_attention_case(32768, 7300, 2, 16, 16, 64),
          decoder_attention_case(32768, 7300, 2, 16, 16, 64)};
}

}  // namespace blt
