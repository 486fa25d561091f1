// Attention inside matching segments: both directions of BLT's patch-masked cross-attention.
#pragma once

#include <ATen/core/Tensor.h>

#include "blt/batch.h"

namespace blt::ops {

//   q                     [Nq, H, E]   floating
//   k, v                  [Nk, Hkv, E] same dtype and device; H is a multiple of Hkv (grouped-query
//   attention) q_segments            Nq rows into S segments; may have empty ones k_segments            Nk
//   rows into S segments, none empty returns               [Nq, H, E]   same dtype and device
//
// Row i of segment s of the queries sees exactly the rows of segment s of the keys: softmax(q k^T * scale) v.
// In the encoder a patch's cross_attn_k queries see the patch's bytes; in the decoder the bytes of `readers`
// run p see the heads of latent p. An empty query segment gives its keys a zero gradient. Differentiable in
// q, k and v; saves only the log-sum-exp. Time and memory linear in Nq + Nk. Deterministic on CPU and CUDA; a
// row's result does not depend on the other segments, bit for bit (CPU).
// Throws c10::Error on a wrong rank, dtype or device, and when segments do not cover their rows or differ in
// number.
//
// Source: Byte Latent Transformer (arXiv:2412.09871), section 3.2.2 and 3.3.1.
at::Tensor segment_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                             const Segments& q_segments, const Segments& k_segments, double scale);

}  // namespace blt::ops
