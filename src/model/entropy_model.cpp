#include "blt/model/entropy_model.h"

#include "blt/ops/cross_entropy.h"
#include "model/dropout.h"

namespace blt {

EntropyModelImpl::EntropyModelImpl(const EntropyModelConfig& config) : config_(config) {
  embedding = register_module("embedding", NgramEmbedding(config.ngram, config.dim));
  layers = register_module("layers", Layers(config, config.dim, config.window));
  norm = register_module("norm", RmsNorm(config.dim, config.norm_eps));
  lm_head = register_module("lm_head", Linear(config.dim, kVocabulary));
}

at::Tensor EntropyModelImpl::forward(const Batch& batch) {
  const at::Tensor h = embedding(batch.bytes, batch.hashed_documents());
  return forward_in(h, layers->context(batch.documents, h));
}

at::Tensor EntropyModelImpl::forward(const at::Tensor& bytes, const Segments& documents) {
  const at::Tensor h = embedding(bytes, documents);
  return forward_in(h, layers->context(documents, h));
}

at::Tensor EntropyModelImpl::forward_in(const at::Tensor& embeddings, const AttentionContext& context) {
  at::Tensor h = module_dropout(embeddings, config_.dropout, is_training());
  return norm_linears(norm, layers->forward_in(h, context), lm_head)[0];
}

EntropyModelImpl::Scores EntropyModelImpl::scores(const at::Tensor& bytes, const at::Tensor& targets,
                                                  const Segments& documents) {
  TORCH_CHECK(!embedding->byte_table.requires_grad() && !is_training(),
              "EntropyModel::scores: freeze the model first (blt::freeze)");
  const at::NoGradGuard no_grad;
  const ops::CrossEntropy result = ops::cross_entropy(forward(bytes, documents), targets);
  return {result.entropy, result.nll};
}

}  // namespace blt
