// libblt's settings as transformers', where those can say them; else under a key of libblt's own.
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "blt/base/config_io.h"
#include "io/hf_config.h"

namespace blt {

using nlohmann::ordered_json;

namespace {

ordered_json transformer_json(const std::string& model_type, int64_t dim, const TransformerConfig& config) {
  return {{"model_type", model_type},
          {"vocab_size", 260},
          {"hidden_size", dim},
          {"num_hidden_layers", config.layers},
          {"num_attention_heads", config.heads},
          {"num_key_value_heads", config.num_kv_heads()},
          {"intermediate_size", config.feed_forward_dim(dim)},
          {"hidden_act", "silu"},
          {"rms_norm_eps", config.norm_eps},
          {"rope_parameters", {{"rope_type", "default"}, {"rope_theta", config.rope_theta}}},
          {"dropout", config.dropout}};
}

ordered_json local_json(const std::string& model_type, const BltConfig& config,
                        const TransformerConfig& local, bool cross_attn_all_layers) {
  ordered_json section = transformer_json(model_type, config.local_dim, local);
  section["cross_attn_all_layers"] = cross_attn_all_layers;
  section["cross_attn_k"] = config.cross_attn_k;
  section["hidden_size_global"] = config.latent_transformer.dim;
  return section;
}

ordered_json or_null(int64_t window) { return window == 0 ? ordered_json(nullptr) : ordered_json(window); }

ordered_json patcher_json(const EntropyModelConfig& config) {
  ordered_json section = transformer_json("blt_patcher", config.dim, config);
  section["sliding_window"] = or_null(config.window);
  return section;
}

// transformers' name of a dtype.
std::string dtype_name(at::ScalarType dtype) { return c10::getDtypeNames(dtype).first; }

ordered_json plain_json(const ModelConfig& config, at::ScalarType dtype) {
  const BltConfig& blt = config.blt;
  ordered_json root = {
      {"architectures", {"BltForCausalLM"}}, {"model_type", "blt"}, {"dtype", dtype_name(dtype)}};
  root["vocab_size"] = 260;
  root["tie_word_embeddings"] = blt.tie_embeddings;
  root["use_cache"] =
      false;  // transformers 5.23 crashes with it, and would compute without the latent history
  root["patch_in_forward"] = config.entropy_model.has_value();
  const auto* rule = std::get_if<EntropyPatching>(&config.patching.rule);
  root["patching_mode"] = rule != nullptr ? "entropy" : "byte";
  if (rule != nullptr) root["patching_threshold"] = rule->threshold.value();
  root["max_patch_length"] = config.patching.max_patch_length
                                 ? ordered_json(*config.patching.max_patch_length)
                                 : ordered_json(nullptr);
  root["local_attention_window_len"] = or_null(blt.window);
  root["cross_attn_k"] = blt.cross_attn_k;
  // An empty list would be taken for the default one: no tables are no functions.
  root["encoder_hash_byte_group_size"] = blt.ngram.sizes;
  root["encoder_hash_byte_group_vocab"] = blt.ngram.rows;
  root["encoder_hash_byte_group_nb_functions"] = blt.ngram.sizes.empty() ? 0 : blt.ngram.functions;
  root["encoder_hash_byte_group_dropout"] = blt.ngram.dropout;  // of training; transformers has none
  root["encoder_config"] = local_json("blt_local_encoder", blt, blt.local_encoder,
                                      blt.local_encoder.cross_attention == EncoderCrossAttention::kAll);
  root["global_config"] =
      transformer_json("blt_global_transformer", blt.latent_transformer.dim, blt.latent_transformer);
  root["global_config"].erase("vocab_size");
  const int64_t patch_dim = blt.cross_attn_k * blt.local_dim;
  root["global_config"]["encoder_cross_output_size"] =
      patch_dim == blt.latent_transformer.dim ? ordered_json(nullptr) : ordered_json(patch_dim);
  root["decoder_config"] = local_json("blt_local_decoder", blt, blt.local_decoder,
                                      blt.local_decoder.cross_attention == DecoderCrossAttention::kAll);
  if (config.entropy_model) root["patcher_config"] = patcher_json(*config.entropy_model);
  return root;
}

// JSON has no infinity.
bool has_infinity(const TransformerConfig& config) {
  return !std::isfinite(config.rope_theta) || !std::isfinite(config.norm_eps);
}

// transformers checks the type of vocab_size even where model_type is only a warning to it (BltForCausalLM
// .from_pretrained), so that no way of loading builds some other model.
template <Section S>
std::string own_json(const std::string& model_type, const S& config, at::ScalarType dtype) {
  const ordered_json root = {{"model_type", model_type},
                             {"vocab_size", "for libblt alone: transformers cannot express this model"},
                             {"dtype", dtype_name(dtype)},
                             {"libblt", ordered_json::parse(to_json(config))}};
  return root.dump(2) + "\n";
}

}  // namespace

std::vector<std::string> beyond_transformers(const EntropyModelConfig& config) {
  std::vector<std::string> reasons;
  if (!config.ngram.sizes.empty()) reasons.push_back("n-gram embeddings in the entropy model");
  if (has_infinity(config)) reasons.push_back("an infinite number in the entropy model");
  return reasons;
}

std::vector<std::string> beyond_transformers(const ModelConfig& config) {
  std::vector<std::string> reasons;
  const auto when = [&reasons](bool is_beyond, std::string reason) {
    if (is_beyond) reasons.push_back(std::move(reason));
  };
  const LocalEncoderConfig& encoder = config.blt.local_encoder;
  when(!encoder.feed_forward, "an encoder without feed-forward parts");
  when(encoder.pooling != Pooling::kMax, "pooling other than max");
  when(encoder.cross_attention == EncoderCrossAttention::kAll && encoder.layers > 1 &&
           encoder.patch_queries == PatchQueries::kAccumulate,
       "several encoder cross-attentions that accumulate");
  when(config.blt.local_decoder.cross_attention == DecoderCrossAttention::kNone,
       "a decoder without cross-attention");
  when(has_infinity(encoder) || has_infinity(config.blt.latent_transformer) ||
           has_infinity(config.blt.local_decoder),
       "an infinite number");
  if (config.entropy_model)
    for (const std::string& reason : beyond_transformers(*config.entropy_model)) reasons.push_back(reason);
  if (const auto* rule = std::get_if<EntropyPatching>(&config.patching.rule)) {
    when(!config.entropy_model, "entropy patching without an entropy model inside");
    when(!rule->threshold, "entropy patching without a threshold");
    when(rule->threshold && !std::isfinite(*rule->threshold), "a threshold that is no finite number");
    when(rule->threshold_add.has_value(), "threshold_add");
    when(rule->monotonic, "monotonic patching");
    when(rule->reset_at_newline, "an entropy model that restarts at newlines");
  } else {
    when(!std::holds_alternative<BytePatching>(config.patching.rule),
         "patching other than by entropy or byte");
  }
  return reasons;
}

std::string config_json(const ModelConfig& config, at::ScalarType dtype) {
  if (!beyond_transformers(config).empty()) return own_json("libblt", config, dtype);
  return plain_json(config, dtype).dump(2) + "\n";
}

std::string config_json(const EntropyModelConfig& config, at::ScalarType dtype) {
  if (!beyond_transformers(config).empty()) return own_json("libblt_entropy_model", config, dtype);
  ordered_json root = {{"architectures", {"BltPatcher"}}, {"dtype", dtype_name(dtype)}};
  root.update(patcher_json(config));
  return root.dump(2) + "\n";
}

}  // namespace blt
