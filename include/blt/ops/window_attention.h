// Causal self-attention over packed documents, with or without a sliding window.
#pragma once

#include <ATen/core/Tensor.h>

#include "blt/batch.h"

namespace blt::ops {

//   q         [T, H, E]    floating
//   k, v      [T, Hkv, E]  same dtype and device; H is a multiple of Hkv (grouped-query attention)
//   documents T rows into D documents, none empty
//   window    how many keys a query sees, itself included; 0: all before it
//   returns   [T, H, E]    same dtype and device
//
// Query i of a document sees keys j of the same document with 0 <= i - j, and i - j < window where a window
// is given: softmax(q k^T * scale) v. Differentiable in q, k and v; saves only the log-sum-exp. Memory linear
// in T, time in T * window. Deterministic, but on CUDA in 16 bits for the gradients only after
// at::globalContext().setDeterministicAlgorithms(true, false); on the CPU a document's result does not depend on what it is
// packed with nor on the number of threads, bit for bit. Throws c10::Error on a wrong rank, dtype or device,
// a negative window, or when the documents do not cover the rows.
//
// Source: Byte Latent Transformer (arXiv:2412.09871), section 4.8 (windows of 512 bytes in the local models).
at::Tensor window_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const Segments& documents, int64_t window, double scale);

}  // namespace blt::ops
