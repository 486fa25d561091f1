// The large transformer over patches, which does most of the work (section 3.1 of the paper).
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>

#include "blt/base/config.h"
#include "blt/batch.h"
#include "blt/model/linear.h"
#include "blt/model/traced.h"
#include "blt/model/transformer.h"

namespace blt {

struct LatentTransformerConfig : TransformerConfig {
  LatentTransformerConfig() {
    layers = 24;
    heads = 10;
  }
  int64_t dim = 1280;

  static void fields(auto& self, auto&& field) {
    field("dim", self.dim, "Width of patch states.", at_least(2));
    TransformerConfig::fields(self, field);
  }
  void validate(Errors& errors) const { validate_width(dim, errors); }
};

// Causal over all patches of a document. No final norm, as in the references.
class LatentTransformerImpl : public torch::nn::Module, public Traced {
 public:
  // in: width of what the encoder hands over; a projection stands in front where it differs from config.dim.
  LatentTransformerImpl(const LatentTransformerConfig& config, int64_t in);

  at::Tensor forward(const at::Tensor& patches, const Segments& documents);  // [P, in] -> [P, C']
  at::Tensor forward_in(const at::Tensor& patches, const AttentionContext& context);

  Linear token_embedding_projection{nullptr};  // null where the widths agree
  Layers layers{nullptr};
};
TORCH_MODULE(LatentTransformer);

}  // namespace blt
