// Transformers' settings as libblt's. Absent keys have the defaults of transformers 5.23
// (configuration_blt.py).
#include <fmt/format.h>

#include <cmath>
#include <utility>

#include "io/hf_config.h"
#include "io/json.h"

namespace blt {

using nlohmann::json;

namespace {

constexpr int64_t kIds = 260;

// An object whose keys are read one by one; problems go to `errors` under their full path.
class JsonSection {
 public:
  JsonSection(const json& object, std::string path, Errors& errors)
      : object_(object), path_(std::move(path)), errors_(errors) {}

  // An absent or null one is empty.
  JsonSection section(const std::string& key) const {
    static const json kEmpty = json::object();
    const json* value = find(key);
    if (value != nullptr && !value->is_object() && !value->is_null()) wrong(key, *value, "an object");
    return {value != nullptr && value->is_object() ? *value : kEmpty, path_ + key + ".", errors_};
  }

  bool empty() const { return object_.empty(); }
  // Whether everything read so far was right: settings are compared only then.
  bool is_right() const { return errors_.empty(); }
  bool has(const std::string& key) const { return find(key) != nullptr && !find(key)->is_null(); }

  int64_t integer(const std::string& key, int64_t otherwise) const {
    const json* value = find(key);
    return value == nullptr ? otherwise : integer_in(key, *value, otherwise);
  }
  // null: none
  std::optional<int64_t> optional_integer(const std::string& key, std::optional<int64_t> otherwise) const {
    const json* value = find(key);
    if (value == nullptr) return otherwise;
    if (value->is_null()) return std::nullopt;
    return integer_in(key, *value, 1);
  }
  double number(const std::string& key, double otherwise) const {
    const json* value = find(key);
    if (value == nullptr) return otherwise;
    if (!value->is_number()) return wrong(key, *value, "a number"), otherwise;
    return value->get<double>();
  }
  bool boolean(const std::string& key, bool otherwise) const {  // null: false, as in Python
    const json* value = find(key);
    if (value == nullptr) return otherwise;
    if (value->is_null()) return false;
    if (!value->is_boolean()) return wrong(key, *value, "true or false"), otherwise;
    return value->get<bool>();
  }
  std::string text(const std::string& key, const std::string& otherwise) const {  // null: ""
    const json* value = find(key);
    if (value == nullptr) return otherwise;
    if (value->is_null()) return "";
    if (!value->is_string()) return wrong(key, *value, "text"), otherwise;
    return value->get<std::string>();
  }
  std::vector<int64_t> integers(const std::string& key, std::vector<int64_t> otherwise) const {
    const json* value = find(key);
    if (value == nullptr || value->is_null()) return otherwise;
    if (!value->is_array()) return wrong(key, *value, "a list"), otherwise;
    std::vector<int64_t> list;
    for (const json& element : *value) list.push_back(integer_in(key, element, 1));
    return list.empty() ? otherwise : list;
  }

  void refuse(const std::string& key, const std::string& why) const { errors_.add(path_ + key, why); }
  // A key that may only have the one value libblt computes with.
  void must_be(const std::string& key, int64_t value, const std::string& why) const {
    if (const int64_t found = integer(key, value); found != value)
      refuse(key, fmt::format("is {}, but {} {}", found, why, value));
  }

 private:
  const json* find(const std::string& key) const {
    const auto found = object_.find(key);
    return found == object_.end() ? nullptr : &*found;
  }
  int64_t integer_in(const std::string& key, const json& value, int64_t otherwise) const {
    const bool fits =
        value.is_number_integer() &&
        (!value.is_number_unsigned() || value.get<uint64_t>() <= static_cast<uint64_t>(INT64_MAX));
    if (!fits) return wrong(key, value, "an integer"), otherwise;
    return value.get<int64_t>();
  }
  void wrong(const std::string& key, const json& value, const std::string& wanted) const {
    errors_.add(path_ + key, fmt::format("is {}, but must be {}", json_shown(value), wanted));
  }

  const json& object_;
  std::string path_;
  Errors& errors_;
};

double rope_theta(const JsonSection& section, double otherwise) {
  // The older spelling wins, as in transformers, unless it is null or empty.
  const JsonSection older = section.section("rope_scaling");
  const JsonSection rope = older.empty() ? section.section("rope_parameters") : older;
  const std::string kind = rope.text("rope_type", rope.text("type", "default"));
  if (kind != "default")
    rope.refuse("rope_type",
                fmt::format("is {}, but libblt has only default rotary positions", json_quoted(kind)));
  return rope.number("rope_theta", section.number("rope_theta", otherwise));
}

struct Defaults {
  int64_t dim, heads, layers;
  std::optional<int64_t> ffn_dim;  // none: 8/3 of the width, rounded down
  double theta = 500000.0;
};

// Reads a section of a transformer into `config`; returns its width.
int64_t read_transformer(const JsonSection& section, const Defaults& defaults, TransformerConfig& config) {
  const int64_t dim = section.integer("hidden_size", defaults.dim);
  config.layers = section.integer("num_hidden_layers", defaults.layers);
  config.heads = section.integer("num_attention_heads", defaults.heads);
  config.kv_heads = section.optional_integer("num_key_value_heads", std::nullopt);
  config.ffn_dim = section.optional_integer("intermediate_size", defaults.ffn_dim);
  if (!config.ffn_dim && dim > 0) config.ffn_dim = static_cast<int64_t>(8.0 * static_cast<double>(dim) / 3.0);
  config.rope_theta = rope_theta(section, defaults.theta);
  config.norm_eps = section.number("rms_norm_eps", 1e-5);
  config.dropout = section.number("dropout", 0.0);
  if (const std::string activation = section.text("hidden_act", "silu"); activation != "silu")
    section.refuse("hidden_act", fmt::format("is {}, but libblt has only silu", json_quoted(activation)));
  if (config.heads > 0 && section.has("head_dim"))
    section.must_be("head_dim", dim / config.heads, "libblt's heads share the width: here");
  section.must_be("vocab_size", kIds, "libblt's vocabulary has");
  return dim;
}

EntropyModelConfig read_patcher(const JsonSection& section) {
  EntropyModelConfig config;
  config.dim = read_transformer(
      section, {.dim = 768, .heads = 12, .layers = 14, .ffn_dim = 2048, .theta = 10000.0}, config);
  config.window = section.optional_integer("sliding_window", 512).value_or(0);
  if (section.has("sliding_window") && config.window < 1)
    section.refuse("sliding_window", "must be at least 1, or null");
  return config;
}

BltConfig read_blt(const JsonSection& root) {
  BltConfig config;
  root.must_be("vocab_size", kIds, "libblt's vocabulary has");
  const JsonSection encoder = root.section("encoder_config"), decoder = root.section("decoder_config"),
                    latent = root.section("global_config");
  config.local_dim =
      read_transformer(encoder, {.dim = 1024, .heads = 16, .layers = 1, .ffn_dim = {}}, config.local_encoder);
  const int64_t decoder_dim = read_transformer(
      decoder, {.dim = 1024, .heads = 16, .layers = 9, .ffn_dim = 2816}, config.local_decoder);
  if (root.is_right() && decoder_dim != config.local_dim)
    decoder.refuse("hidden_size",
                   fmt::format("is {}, but the decoder goes on from the encoder's byte states, "
                               "of width {}",
                               decoder_dim, config.local_dim));
  config.latent_transformer.dim = read_transformer(
      latent, {.dim = 2048, .heads = 16, .layers = 25, .ffn_dim = 5632}, config.latent_transformer);
  if (const int64_t dim = decoder.integer("hidden_size_global", 2048);
      root.is_right() && dim != config.latent_transformer.dim)
    decoder.refuse("hidden_size_global", fmt::format("is not global_config.hidden_size, which is {}",
                                                     config.latent_transformer.dim));

  config.window = root.optional_integer("local_attention_window_len", 512).value_or(0);
  if (root.has("local_attention_window_len") && config.window < 1)
    root.refuse("local_attention_window_len", "must be at least 1, or null");
  config.cross_attn_k = root.integer("cross_attn_k", 2);
  for (const JsonSection& local : {encoder, decoder})
    if (const int64_t k = local.integer("cross_attn_k", 2); root.is_right() && k != config.cross_attn_k)
      local.refuse("cross_attn_k",
                   fmt::format("is {}, but the model's cross_attn_k is {}", k, config.cross_attn_k));
  config.tie_embeddings = root.boolean("tie_word_embeddings", false);

  config.ngram.sizes = root.integers("encoder_hash_byte_group_size", NgramConfig().sizes);
  config.ngram.rows = root.integer("encoder_hash_byte_group_vocab", 500002);
  config.ngram.functions = root.integer("encoder_hash_byte_group_nb_functions", 1);
  config.ngram.dropout = root.number("encoder_hash_byte_group_dropout", 0.0);
  if (config.ngram.functions == 0) config.ngram = {.sizes = {}};

  config.local_encoder.cross_attention = encoder.boolean("cross_attn_all_layers", false)
                                             ? EncoderCrossAttention::kAll
                                             : EncoderCrossAttention::kLast;
  // With one cross-attention the two are the same: the plain name for it.
  if (config.local_encoder.cross_attention == EncoderCrossAttention::kAll && config.local_encoder.layers > 1)
    config.local_encoder.patch_queries = PatchQueries::kRepool;
  config.local_decoder.cross_attention = decoder.boolean("cross_attn_all_layers", true)
                                             ? DecoderCrossAttention::kAll
                                             : DecoderCrossAttention::kFirst;
  return config;
}

}  // namespace

EntropyModelConfig patcher_from_transformers(const json& root, Errors& errors) {
  return read_patcher({root, "", errors});
}

ModelConfig from_transformers(const json& object, Errors& errors) {
  const JsonSection root(object, "", errors);
  ModelConfig config;
  config.blt = read_blt(root);
  config.patching.max_patch_length = root.optional_integer("max_patch_length", std::nullopt);
  const bool has_patcher = root.boolean("patch_in_forward", true);
  if (has_patcher) config.entropy_model = read_patcher(root.section("patcher_config"));
  if (has_patcher && root.text("patching_mode", "entropy") == "entropy") {
    EntropyPatching rule;
    rule.threshold = root.number("patching_threshold", 1.335442066192627);
    if (!root.optional_integer("patch_size", 4))
      root.refuse("patch_size", "is null: transformers then cuts no patches by entropy");
    config.patching.rule = rule;
  } else {
    config.patching.rule = BytePatching();  // whatever the mode's name
  }
  return config;
}

}  // namespace blt
