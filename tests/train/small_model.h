// A Blt and batches small enough to train in a test.
#pragma once

#include <string>
#include <vector>

#include "blt/batch.h"
#include "blt/data/stage.h"
#include "blt/model/blt.h"
#include "blt/train/trainer.h"

namespace blt::testing {

inline BltConfig small_config() {
  BltConfig config;
  config.local_dim = 16;
  config.window = 8;
  config.ngram.sizes = {2, 3};
  config.ngram.rows = 50;
  config.local_encoder.layers = 1;
  config.local_decoder.layers = 1;
  config.latent_transformer.layers = 1;
  config.latent_transformer.dim = 32;
  for (TransformerConfig* part : {static_cast<TransformerConfig*>(&config.local_encoder),
                                  static_cast<TransformerConfig*>(&config.local_decoder),
                                  static_cast<TransformerConfig*>(&config.latent_transformer)}) {
    part->heads = 2;
    part->ffn_dim = 32;
  }
  return config;
}

// A patch every three bytes.
inline PatchedSequence sequence(const std::string& text) {
  PatchedSequence result;
  result.ids = {kBos};
  for (const char c : text) result.ids.push_back(static_cast<unsigned char>(c) + kByteOffset);
  result.starts = {0};
  for (int64_t start = 1; start <= static_cast<int64_t>(text.size()); start += 3)
    result.starts.push_back(start);
  return result;
}

// The same batches over and over.
class RepeatBatches : public Stage<Batch> {
 public:
  explicit RepeatBatches(std::vector<Batch> batches) : batches_(std::move(batches)) {}
  std::optional<Batch> next() override { return batches_[next_++ % batches_.size()]; }
  void save(StateWriter&) const override {}
  void load(const StateReader&) override {}

 private:
  std::vector<Batch> batches_;
  size_t next_ = 0;
};

// Steps large enough to show in a few, and no log.
inline TrainConfig quick(int64_t steps) {
  TrainConfig config;
  config.steps = steps;
  config.optimizer.learning_rate = 1e-2;
  config.schedule = ConstantSchedule{};
  config.log_every = 1000;
  return config;
}

}  // namespace blt::testing
