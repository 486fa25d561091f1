// Models small enough for tests, every option that they have, and random documents to feed them.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "blt/batch.h"
#include "blt/model/blt.h"
#include "blt/model/entropy_model.h"

namespace blt {

inline BltConfig small_config() {
  BltConfig config;
  config.local_dim = 16;
  config.window = 12;
  config.ngram = {.sizes = {3, 4, 5}, .rows = 50, .functions = 1};
  config.local_encoder.heads = config.local_decoder.heads = 2;
  config.local_encoder.ffn_dim = config.local_decoder.ffn_dim = 24;
  config.local_decoder.layers = 2;
  config.latent_transformer.dim = 32;  // k x local_dim: no projection
  config.latent_transformer.layers = 2;
  config.latent_transformer.heads = 4;
  config.latent_transformer.ffn_dim = 48;
  return config;
}

inline EntropyModelConfig small_entropy_config() {
  EntropyModelConfig config;
  config.dim = 16;
  config.layers = 2;
  config.heads = 2;
  config.ffn_dim = 24;
  config.window = 10;
  return config;
}

// One model for every option, and some that meet.
inline std::vector<std::pair<std::string, BltConfig>> option_configs() {
  std::vector<std::pair<std::string, BltConfig>> list;
  const auto add = [&list](const std::string& name, auto change) {
    BltConfig config = small_config();
    change(config);
    list.emplace_back(name, config);
  };
  add("default", [](BltConfig&) {});
  add("mean_pooling", [](BltConfig& c) { c.local_encoder.pooling = Pooling::kMean; });
  add("min_pooling", [](BltConfig& c) { c.local_encoder.pooling = Pooling::kMin; });
  add("encoder_without_feed_forward", [](BltConfig& c) { c.local_encoder.feed_forward = false; });
  add("encoder_cross_attention_last_of_2", [](BltConfig& c) { c.local_encoder.layers = 2; });
  add("encoder_cross_attention_in_all", [](BltConfig& c) {
    c.local_encoder.layers = 3;
    c.local_encoder.cross_attention = EncoderCrossAttention::kAll;
  });
  add("encoder_cross_attention_in_all_repooling", [](BltConfig& c) {
    c.local_encoder.layers = 2;
    c.local_encoder.cross_attention = EncoderCrossAttention::kAll;
    c.local_encoder.patch_queries = PatchQueries::kRepool;
  });
  add("decoder_cross_attention_in_first",
      [](BltConfig& c) { c.local_decoder.cross_attention = DecoderCrossAttention::kFirst; });
  add("decoder_without_cross_attention",
      [](BltConfig& c) { c.local_decoder.cross_attention = DecoderCrossAttention::kNone; });
  add("decoder_without_cross_attention_or_projection", [](BltConfig& c) {
    c.local_decoder.cross_attention = DecoderCrossAttention::kNone;
    c.latent_transformer.dim = c.local_dim;
  });
  add("token_projection_and_k_4", [](BltConfig& c) {
    c.cross_attn_k = 4;
    c.latent_transformer.dim = 24;
  });
  add("k_1", [](BltConfig& c) { c.cross_attn_k = 1; });
  add("grouped_queries", [](BltConfig& c) {
    c.local_encoder.kv_heads = 1;
    c.local_decoder.kv_heads = 1;
    c.latent_transformer.kv_heads = 2;
  });
  add("no_window", [](BltConfig& c) { c.window = 0; });
  add("tied_embeddings", [](BltConfig& c) { c.tie_embeddings = true; });
  add("no_ngrams", [](BltConfig& c) { c.ngram.sizes = {}; });
  add("two_hash_functions", [](BltConfig& c) { c.ngram.functions = 2; });
  return list;
}

// A BOS and `num_bytes` random bytes, few enough different ones that n-grams repeat; patches of random lengths.
inline PatchedSequence random_document(std::mt19937_64& rng, int64_t num_bytes) {
  PatchedSequence document;
  document.ids = {kBos};
  document.starts = {0, 1};
  for (int64_t i = 1; i <= num_bytes; ++i) {
    document.ids.push_back(kByteOffset + static_cast<int32_t>(97 + rng() % 6));
    if (rng() % 3 == 0)
      document.starts.push_back(i + 1);  // also after the last: the next id then starts a patch
  }
  return document;
}

inline std::vector<PatchedSequence> random_documents(std::mt19937_64& rng,
                                                     const std::vector<int64_t>& num_bytes) {
  std::vector<PatchedSequence> documents;
  for (const int64_t n : num_bytes) documents.push_back(random_document(rng, n));
  return documents;
}

}  // namespace blt
