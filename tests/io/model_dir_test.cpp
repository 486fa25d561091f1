// Models into directories and back: everything that libblt can say comes back, in transformers' words where it has
// them.
#include "blt/io/model_dir.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <torch/torch.h>

#include <csignal>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "blt/base/config_io.h"
#include "blt/base/error.h"
#include "blt/io/safetensors.h"
#include "file_content.h"
#include "message.h"
#include "model/small_model.h"
#include "temporary_folder.h"

namespace blt {
namespace {

using blt_test::TemporaryFolder;
using nlohmann::json;

LoadedModel model_of(const ModelConfig& config) {
  torch::manual_seed(3);
  LoadedModel model{.config = config};
  model.blt = Blt(config.blt);
  if (config.entropy_model) model.entropy_model = EntropyModel(*config.entropy_model);
  return model;
}

PatchingConfig entropy_patching(double threshold) {
  PatchingConfig patching;
  EntropyPatching rule;
  rule.threshold = threshold;
  patching.rule = rule;
  return patching;
}

ModelConfig small_model_config() {
  return {.blt = small_config(), .entropy_model = small_entropy_config(), .patching = entropy_patching(2.5)};
}

// The settings with everything said that has a default that depends on other settings, and nothing of what
// transformers does not keep: initialisation, and what has no effect.
void say_all(TransformerConfig& config, int64_t dim) {
  config.kv_heads = config.num_kv_heads();
  config.ffn_dim = config.feed_forward_dim(dim);
  config.init_std_factor = InitStdFactor::kDisabled;
  config.init_base_std.reset();
}
EntropyModelConfig meaning(EntropyModelConfig config) {
  say_all(config, config.dim);
  return config;
}
ModelConfig meaning(ModelConfig config) {
  say_all(config.blt.local_encoder, config.blt.local_dim);
  say_all(config.blt.local_decoder, config.blt.local_dim);
  say_all(config.blt.latent_transformer, config.blt.latent_transformer.dim);
  if (config.entropy_model) config.entropy_model = meaning(*config.entropy_model);
  if (config.blt.ngram.sizes.empty()) config.blt.ngram = {.sizes = {}};
  if (config.blt.local_encoder.layers == 1 ||
      config.blt.local_encoder.cross_attention == EncoderCrossAttention::kLast)
    config.blt.local_encoder.patch_queries = PatchQueries::kAccumulate;
  return config;
}

template <class Module>
void expect_same_parameters(const Module& actual, const Module& expected) {
  const auto a = actual.named_parameters(), b = expected.named_parameters();
  ASSERT_EQ(a.size(), b.size());
  for (const auto& item : b) {
    const at::Tensor* found = a.find(item.key());
    ASSERT_NE(found, nullptr) << item.key();
    EXPECT_TRUE(torch::equal(*found, item.value())) << item.key();
    EXPECT_TRUE(found->requires_grad()) << item.key();
  }
}

struct Example {
  std::string name;
  ModelConfig config;
  bool is_plain;  // transformers can express it
};
void PrintTo(const Example& example, std::ostream* out) { *out << example.name; }

std::vector<Example> examples() {
  std::vector<Example> list;
  const std::vector<std::string> ours = {"mean_pooling",
                                         "min_pooling",
                                         "encoder_without_feed_forward",
                                         "encoder_cross_attention_in_all",
                                         "decoder_without_cross_attention",
                                         "decoder_without_cross_attention_or_projection"};
  for (const auto& [name, blt] : option_configs()) {
    ModelConfig config = small_model_config();
    config.blt = blt;
    list.push_back({name, config, std::find(ours.begin(), ours.end(), name) == ours.end()});
  }
  const auto add = [&list](const std::string& name, bool is_plain,
                           const std::function<void(ModelConfig&)>& change) {
    ModelConfig config = small_model_config();
    change(config);
    list.push_back({name, config, is_plain});
  };
  const auto rule = [&add](const std::string& name, bool is_plain, auto change) {
    add(name, is_plain, [change](ModelConfig& c) { change(std::get<EntropyPatching>(c.patching.rule)); });
  };
  add("max_patch_length", true, [](ModelConfig& c) { c.patching.max_patch_length = 5; });
  add("byte_patching", true, [](ModelConfig& c) { c.patching.rule = BytePatching(); });
  add("byte_patching_without_entropy_model", true, [](ModelConfig& c) {
    c.patching.rule = BytePatching();
    c.entropy_model.reset();
  });
  add("a_threshold_that_needs_every_digit", true,
      [](ModelConfig& c) { c.patching = entropy_patching(0.1 + 0.2); });
  add("a_negative_threshold", true, [](ModelConfig& c) { c.patching = entropy_patching(-1); });
  add("thetas_norms_and_dropouts_of_their_own", true, [](ModelConfig& c) {
    c.blt.local_encoder.rope_theta = 1234.5;
    c.blt.latent_transformer.rope_theta = 1e6;
    c.blt.local_decoder.rope_theta = 1.0 / 3.0;
    c.entropy_model->rope_theta = 77;
    c.blt.local_encoder.norm_eps = 1e-6;
    c.blt.latent_transformer.norm_eps = 2e-5;
    c.blt.local_decoder.norm_eps = 3e-5;
    c.entropy_model->norm_eps = 1e-4;
    c.blt.local_decoder.dropout = 0.25;
    c.blt.ngram.dropout = 0.75;
    c.entropy_model->dropout = 0.125;
  });
  add("windows", true, [](ModelConfig& c) {
    c.blt.window = 7;
    c.entropy_model->window = 0;
  });
  add("grouped_queries_in_the_entropy_model", true, [](ModelConfig& c) { c.entropy_model->kv_heads = 1; });
  add("widths_by_default", true, [](ModelConfig& c) {
    c.blt.local_encoder.ffn_dim.reset();
    c.entropy_model->ffn_dim.reset();
  });
  add("initialisation", true, [](ModelConfig& c) { c.blt.local_decoder.init_base_std = 0.02; });

  add("space_patching", false, [](ModelConfig& c) { c.patching.rule = SpacePatching(); });
  add("space_patching_without_entropy_model", false, [](ModelConfig& c) {
    c.patching.rule = SpacePatching();
    c.entropy_model.reset();
  });
  add("static_patching", false, [](ModelConfig& c) {
    c.patching.rule = StaticPatching{.patch_bytes = 6};
    c.patching.max_patch_length = 4;
  });
  add("top_k_patching", false, [](ModelConfig& c) { c.patching.rule = TopKPatching{.patch_bytes = 3}; });
  add("entropies_from_elsewhere", false, [](ModelConfig& c) { c.entropy_model.reset(); });
  rule("threshold_add", false, [](EntropyPatching& r) { r.threshold_add = 0.5; });
  rule("monotonic", false, [](EntropyPatching& r) { r.monotonic = true; });
  rule("reset_at_newline", false, [](EntropyPatching& r) { r.reset_at_newline = true; });
  rule("a_threshold_to_be_found", false, [](EntropyPatching& r) {
    r.threshold.reset();
    r.mean_patch_bytes = 4.25;
  });
  rule("an_infinite_threshold", false,
       [](EntropyPatching& r) { r.threshold = std::numeric_limits<double>::infinity(); });
  add("ngrams_in_the_entropy_model", false, [](ModelConfig& c) {
    c.entropy_model->ngram = {.sizes = {2, 3}, .rows = 20, .functions = 2};
  });
  add("an_infinite_theta", false,
      [](ModelConfig& c) { c.blt.latent_transformer.rope_theta = std::numeric_limits<double>::infinity(); });
  add("initialisation_of_ours", false, [](ModelConfig& c) {
    c.patching.rule = SpacePatching();
    c.blt.local_decoder.init_base_std = 0.02;
    c.blt.latent_transformer.init_std_factor = InitStdFactor::kCurrentDepth;
    c.blt.local_encoder.ffn_dim.reset();
  });
  return list;
}

class ModelDirectory : public testing::TestWithParam<Example> {};

TEST_P(ModelDirectory, ComesBack) {
  const TemporaryFolder folder;
  const auto path = folder / "model";
  const ModelConfig& config = GetParam().config;
  const LoadedModel saved = model_of(config);
  EXPECT_EQ(beyond_transformers(config).empty(), GetParam().is_plain);
  save_model(path, saved);
  EXPECT_EQ(folder.num_entries(), 1u);
  EXPECT_EQ(snapshot(path).size(), 2u);

  const json written = json::parse(content_of(path / "config.json"));
  EXPECT_EQ(written["model_type"], GetParam().is_plain ? "blt" : "libblt");
  EXPECT_EQ(written.contains("libblt"), !GetParam().is_plain);
  EXPECT_EQ(written.contains("architectures"), GetParam().is_plain);
  EXPECT_EQ(read_model_kind(path), ModelKind::kBlt);

  const LoadedModel loaded = load_model(path);
  const bool is_plain = GetParam().is_plain;
  EXPECT_EQ(to_yaml(is_plain ? meaning(loaded.config) : loaded.config),
            to_yaml(is_plain ? meaning(config) : config));
  EXPECT_EQ(to_yaml(loaded.blt->config()), to_yaml(loaded.config.blt));
  expect_same_parameters(*loaded.blt, *saved.blt);
  ASSERT_EQ(loaded.entropy_model.is_empty(), saved.entropy_model.is_empty());
  if (!loaded.entropy_model.is_empty()) expect_same_parameters(*loaded.entropy_model, *saved.entropy_model);

  if (std::isinf(config.blt.latent_transformer.rope_theta)) return;
  const torch::NoGradGuard no_grad;
  std::mt19937_64 random(1);
  const Batch batch = Batch::pack(random_documents(random, {40, 7}));
  Blt a = loaded.blt, b = saved.blt;
  a->eval();
  b->eval();
  EXPECT_TRUE(torch::equal(a->forward(batch), b->forward(batch)));

  // What came back is written the same: nothing drifts.
  save_model(folder / "again", loaded);
  EXPECT_EQ(content_of(folder / "again" / "model.safetensors"), content_of(path / "model.safetensors"));
  EXPECT_EQ(json::parse(content_of(folder / "again" / "config.json")).contains("libblt"), !is_plain);
  EXPECT_EQ(to_yaml(read_model_config(folder / "again")), to_yaml(loaded.config));
}
INSTANTIATE_TEST_SUITE_P(All, ModelDirectory, testing::ValuesIn(examples()),
                         [](const auto& chosen) { return chosen.param.name; });

TEST(ModelDirectories, WriteTheNamesOfTransformers) {
  const TemporaryFolder folder;
  ModelConfig config = small_model_config();
  config.blt.latent_transformer.dim = 24;  // with a projection
  save_model(folder / "plain", model_of(config));
  const SafetensorsFile file(folder / "plain" / "model.safetensors");
  EXPECT_EQ(file.metadata(), (std::map<std::string, std::string>{{"format", "pt"}}));
  for (const char* name :
       {"lm_head.weight", "model.local_encoder.embed_tokens.weight",
        "model.encoder_hash_tok_embedding.weight", "model.local_encoder.layers.0.self_attn.q_proj.weight",
        "model.local_encoder.layers.0.mlp.down_proj.weight",
        "model.local_encoder.patch_embedding_projection.weight",
        "model.local_encoder.cross_attn_layers.0.k_norm.weight",
        "model.global_transformer.token_embedding_projection.weight",
        "model.global_transformer.layers.1.post_attention_layernorm.weight",
        "model.local_decoder.cross_attn_layers.1.o_proj.weight", "model.local_decoder.norm.weight",
        "model.patcher.embed_tokens.weight", "model.patcher.layers.0.input_layernorm.weight",
        "model.patcher.lm_head.weight", "model.patcher.norm.weight"})
    EXPECT_NE(file.find(name), nullptr) << name;

  config.blt.ngram.sizes = {};
  config.blt.tie_embeddings = true;
  save_model(folder / "tied", model_of(config));
  const SafetensorsFile tied(folder / "tied" / "model.safetensors");
  EXPECT_NE(tied.find("lm_head.weight"), nullptr);
  EXPECT_EQ(tied.find("model.local_encoder.embed_tokens.weight"), nullptr);
  ASSERT_NE(tied.find("model.encoder_hash_tok_embedding.weight"), nullptr);  // transformers always has it
  EXPECT_EQ(tied.find("model.encoder_hash_tok_embedding.weight")->sizes, (std::vector<int64_t>{0, 16}));
}

// Parameters are stored as they are; config.json says the type that rounds none of them.
TEST(ModelDirectories, HoldTheTypeOfTheParameters) {
  const TemporaryFolder folder;
  const auto dtypes = [&](const std::string& name) {
    std::set<at::ScalarType> found;
    const SafetensorsFile file(folder / name / "model.safetensors");
    for (const SafetensorsEntry& entry : file.entries()) found.insert(entry.dtype);
    return found;
  };
  const auto said = [&](const std::string& name) {
    return json::parse(content_of(folder / name / "config.json"))["dtype"].get<std::string>();
  };
  for (const bool is_plain : {true, false}) {
    const std::string name = is_plain ? "plain" : "ours";
    ModelConfig config = small_model_config();
    config.blt.ngram.sizes = {};  // whose empty tensor has a type too
    if (!is_plain) config.patching.rule = SpacePatching();
    LoadedModel model = model_of(config);
    model.blt->to(torch::kBFloat16);
    save_model(folder / (name + "_mixed"), model);
    EXPECT_EQ(dtypes(name + "_mixed"), (std::set<at::ScalarType>{at::kFloat, at::kBFloat16}));
    EXPECT_EQ(said(name + "_mixed"), "float32");
    model.entropy_model->to(torch::kBFloat16);
    save_model(folder / (name + "_narrow"), model);
    EXPECT_EQ(dtypes(name + "_narrow"), std::set<at::ScalarType>{at::kBFloat16});
    EXPECT_EQ(said(name + "_narrow"), "bfloat16");
    save_entropy_model(folder / (name + "_alone"), model.entropy_model);
    EXPECT_EQ(said(name + "_alone"), "bfloat16");
    // Reading widens.
    const LoadedModel loaded = load_model(folder / (name + "_narrow"));
    EXPECT_EQ(loaded.blt->parameters()[0].scalar_type(), torch::kFloat);
    model.blt->to(torch::kFloat);
    model.entropy_model->to(torch::kFloat);
    expect_same_parameters(*loaded.blt, *model.blt);
    expect_same_parameters(*load_entropy_model(folder / (name + "_alone")), *model.entropy_model);
    save_model(folder / (name + "_wide"), loaded);
    EXPECT_EQ(dtypes(name + "_wide"), std::set<at::ScalarType>{at::kFloat});
    EXPECT_EQ(said(name + "_wide"), "float32");
  }
}

class EntropyModelDirectory : public testing::TestWithParam<bool> {};

TEST_P(EntropyModelDirectory, ComesBack) {
  const bool has_ngrams = GetParam();
  const TemporaryFolder folder;
  EntropyModelConfig config = small_entropy_config();
  config.kv_heads = 1;
  config.window = 0;
  config.dropout = 0.5;
  if (has_ngrams) config.ngram = {.sizes = {2, 4}, .rows = 30, .functions = 1};
  EXPECT_EQ(beyond_transformers(config).size(), has_ngrams ? 1u : 0u);
  const EntropyModel saved(config);
  save_entropy_model(folder / "alone", saved);
  const json written = json::parse(content_of(folder / "alone" / "config.json"));
  EXPECT_EQ(written["model_type"], has_ngrams ? "libblt_entropy_model" : "blt_patcher");
  EXPECT_EQ(read_model_kind(folder / "alone"), ModelKind::kEntropyModel);
  EXPECT_EQ(to_yaml(meaning(read_entropy_model_config(folder / "alone"))), to_yaml(meaning(config)));
  expect_same_parameters(*load_entropy_model(folder / "alone"), *saved);
  EXPECT_MESSAGE(load_model(folder / "alone"), "alone: holds an entropy model alone");
}
INSTANTIATE_TEST_SUITE_P(All, EntropyModelDirectory, testing::Bool(),
                         [](const auto& chosen) { return chosen.param ? "WithNgrams" : "Plain"; });

TEST(ModelDirectories, TheEntropyModelInsideLoadsAlone) {
  const TemporaryFolder folder;
  ModelConfig config = small_model_config();
  const LoadedModel saved = model_of(config);
  save_model(folder / "plain", saved);
  config.patching.rule = SpacePatching();
  save_model(folder / "ours", {.config = config, .blt = saved.blt, .entropy_model = saved.entropy_model});
  for (const char* name : {"plain", "ours"}) {
    expect_same_parameters(*load_entropy_model(folder / name), *saved.entropy_model);
    EXPECT_EQ(to_yaml(meaning(read_entropy_model_config(folder / name))),
              to_yaml(meaning(small_entropy_config())));
  }
  config.entropy_model.reset();
  save_model(folder / "none", model_of(config));
  EXPECT_MESSAGE(load_entropy_model(folder / "none"),
                 "none: holds a Byte Latent Transformer without an entropy model");
}

// A model that was frozen to give entropies is written as any other.
TEST(ModelDirectories, FrozenModelsAreWrittenToo) {
  const TemporaryFolder folder;
  LoadedModel model = model_of(small_model_config());
  save_model(folder / "before", model);
  freeze(*model.entropy_model);
  save_model(folder / "after", model);
  EXPECT_EQ(content_of(folder / "after" / "model.safetensors"),
            content_of(folder / "before" / "model.safetensors"));
}

TEST(ModelDirectories, LoadingLeavesRandomNumbersAlone) {
  const TemporaryFolder folder;
  save_model(folder / "model", model_of(small_model_config()));
  torch::manual_seed(5);
  const at::Tensor expected = torch::rand({4});
  torch::manual_seed(5);
  load_model(folder / "model");
  load_entropy_model(folder / "model");
  EXPECT_TRUE(torch::equal(torch::rand({4}), expected));
}

TEST(ModelDirectories, AnEmptyFolderAndMissingParentsAreFilled) {
  const TemporaryFolder folder;
  const LoadedModel model = model_of(small_model_config());
  folder.write("here/notes.txt", "kept");
  for (const auto& path : {folder / "here", folder / "not/there/yet", folder / "with/a/slash/"}) {
    save_model(path, model);
    EXPECT_FALSE(load_model(path).blt.is_empty());
  }
  EXPECT_EQ(content_of(folder / "here/notes.txt"), "kept");
}

TEST(ModelDirectories, NeverOverwriteAModel) {
  const TemporaryFolder folder;
  const LoadedModel model = model_of(small_model_config());
  for (const char* name : {"config.json", "model.safetensors", "model.safetensors.index.json"}) {
    const auto path = folder / name;  // a folder for each
    write_content(path / name, "kept");
    const auto before = snapshot(folder.path());
    EXPECT_MESSAGE(save_model(path, model), (path / name).string() + ": is there already");
    EXPECT_MESSAGE(save_entropy_model(path, model.entropy_model),
                   (path / name).string() + ": is there already");
    EXPECT_EQ(snapshot(folder.path()), before);
  }
  save_model(folder / "model", model);
  const auto before = snapshot(folder.path());
  EXPECT_THROW(save_model(folder / "model", model), Error);
  EXPECT_EQ(snapshot(folder.path()), before);
}

// Files cannot grow beyond a size: a full disk, as a program sees it.
class SmallDisk {
 public:
  explicit SmallDisk(rlim_t largest_file) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit = {largest_file, before_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~SmallDisk() {
    setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;

 private:
  rlimit before_ = {};
  void (*handler_)(int);
};

TEST(ModelDirectories, AFailedSaveLeavesNothing) {
  const TemporaryFolder folder;
  const LoadedModel model = model_of(small_model_config());
  folder.write("here/notes.txt", "kept");
  folder.write("file", "kept");
  const auto before = snapshot(folder.path());
  for (const rlim_t largest : {0, 100, 5000}) {
    std::string here, there;
    {
      const SmallDisk full(largest);
      here = message_of([&] { save_model(folder / "here", model); });
      there = message_of([&] { save_model(folder / "there", model); });
    }
    EXPECT_NE(here.find("model.safetensors: cannot write: File too large"), std::string::npos) << here;
    EXPECT_NE(there.find("model.safetensors: cannot write: File too large"), std::string::npos) << there;
    EXPECT_EQ(snapshot(folder.path()), before) << largest;
  }
  EXPECT_THROW(save_model(folder / "file", model), Error);
  EXPECT_THROW(save_model(folder / "file/below", model), Error);
  LoadedModel wrong = model;  // settings that would be refused when they are read
  std::get<EntropyPatching>(wrong.config.patching.rule).mean_patch_bytes = 4;
  EXPECT_THROW(save_model(folder / "here", wrong), Error);
  EXPECT_THROW(save_model(folder / "there", wrong), Error);
  EXPECT_EQ(snapshot(folder.path()), before);
  save_model(folder / "here", model);  // and it works once there is room
}

}  // namespace
}  // namespace blt
