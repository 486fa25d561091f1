// Softmax cross-entropy over the byte vocabulary, with what else can be read off the same pass.
#pragma once

#include <ATen/core/Tensor.h>

namespace blt::ops {

struct CrossEntropy {
  at::Tensor
      nll;  // [T] -log p(target) in nats; 0 where the target is kIgnore. float32 (float64 for float64 logits)
  at::Tensor entropy;  // [T] -sum p log p in nats, same dtype; not differentiable
  at::Tensor argmax;   // [T] int32 the likeliest id, the smallest of equals
};

//   logits   [T, V]  floating
//   targets  [T]     int32: an id in [0, V) or kIgnore
//
// One pass over the logits, accumulated in float32 (float64 for float64 logits). nll is differentiable in
// logits. Deterministic; a row's results do not depend on the others, bit for bit. Throws c10::Error on a
// wrong rank, dtype or device, and (CPU) on a target outside the vocabulary.
//
// Source: entropies are H(x_i) of Byte Latent Transformer (arXiv:2412.09871), equation 1.
CrossEntropy cross_entropy(const at::Tensor& logits, const at::Tensor& targets);

}  // namespace blt::ops
