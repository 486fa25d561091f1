// Directories that are not what they should be: one clear error each, and nothing changed.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "blt/base/error.h"
#include "blt/io/model_dir.h"
#include "blt/io/safetensors.h"
#include "file_content.h"
#include "message.h"
#include "model/small_model.h"
#include "temporary_folder.h"

namespace blt {
namespace {

using nlohmann::json;
using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

// A directory as transformers writes it, to be damaged.
class DamagedModel : public testing::Test {
 protected:
  DamagedModel() {
    PatchingConfig patching;
    patching.rule = EntropyPatching{};
    std::get<EntropyPatching>(patching.rule).threshold = 2.5;
    model_ = {
        .config = {.blt = small_config(), .entropy_model = small_entropy_config(), .patching = patching},
        .blt = Blt(small_config()),
        .entropy_model = EntropyModel(small_entropy_config())};
    save_model(path(), model_);
    config_ = json::parse(content_of(path() / "config.json"));
    const SafetensorsFile file(path() / "model.safetensors");
    for (const SafetensorsEntry& entry : file.entries())
      tensors_.emplace_back(entry.name, file.tensor(entry.name).clone());
  }

  std::filesystem::path path() const { return folder_ / "model"; }

  // Loading is refused with a blt::Error that says all of `texts`, and changes nothing.
  void expect_refused(const std::vector<std::string>& texts) const {
    const auto before = snapshot(folder_.path());
    std::string said;
    try {
      load_model(path());
      ADD_FAILURE() << "was loaded";
    } catch (const Error& e) {
      said = e.what();
    }
    EXPECT_TRUE(said.starts_with(path().string())) << said;
    for (const std::string& text : texts)
      EXPECT_NE(said.find(text), std::string::npos) << "'" << text << "' is not in: " << said;
    EXPECT_LT(said.size(), 3000u) << said;
    EXPECT_EQ(snapshot(folder_.path()), before);
  }

  // The same of a config.json that `change` has changed.
  void expect_config_refused(const std::string& changed, const std::vector<std::string>& texts) {
    SCOPED_TRACE(changed.substr(0, 2000));
    write_content(path() / "config.json", changed);
    expect_refused(texts);
    write_content(path() / "config.json", config_.dump(2));
  }
  void expect_config_refused(const std::string& pointer, const json& value,
                             const std::vector<std::string>& texts) {
    json changed = config_;
    changed[json::json_pointer(pointer)] = value;
    SCOPED_TRACE(pointer + " = " + value.dump());
    expect_config_refused(changed.dump(), texts);
  }

  void write_config(const std::string& pointer, const json& value) {
    json changed = config_;
    changed[json::json_pointer(pointer)] = value;
    write_content(path() / "config.json", changed.dump());
  }

  at::Tensor& tensor(const std::string& name) {
    return std::find_if(tensors_.begin(), tensors_.end(), [&](const auto& t) { return t.first == name; })
        ->second;
  }
  void write_tensors(const NamedTensors& tensors) {
    write_safetensors(path() / "model.safetensors", tensors);
  }
  NamedTensors without(const std::string& start) const {
    NamedTensors rest;
    for (const auto& item : tensors_)
      if (!item.first.starts_with(start)) rest.push_back(item);
    return rest;
  }

  blt_test::TemporaryFolder folder_;
  LoadedModel model_;
  json config_;
  NamedTensors tensors_;
};

constexpr const char* kNorm = "model.local_decoder.norm.weight";

TEST_F(DamagedModel, MissingTensors) {
  write_tensors(without(kNorm));
  expect_refused({"model.safetensors: 1 of the model's tensors does not fit config.json",
                  std::string(kNorm) + " [16] is missing"});
  write_tensors(without("model.patcher.layers.1"));
  expect_refused({"9 of the model's tensors do not fit",
                  "model.patcher.layers.1.mlp.up_proj.weight [24, 16] is missing"});
  write_tensors(without("model.local"));  // many: the list is cut
  expect_refused({"model.local_encoder.embed_tokens.weight", "and "});
  write_tensors({});
  expect_refused({"config.json: wants 7 layers, but the weights have only 0 tensors"});
}

TEST_F(DamagedModel, TensorsNobodyKnows) {
  for (const char* name : {"model.local_decoder.norm.bias", "model.patcher.layers.2.mlp.up_proj.weight", "",
                           "lm_head.weight2"}) {
    SCOPED_TRACE(name);
    for (const at::Tensor& tensor : {torch::ones({2, 3}), torch::ones({0, 3})}) {
      NamedTensors more = tensors_;
      more.emplace_back(name, tensor);
      write_tensors(more);
      expect_refused({"\"" + std::string(name) + "\" [" + std::to_string(tensor.size(0)) +
                      ", 3] is not part of this model"});
    }
  }
}

TEST_F(DamagedModel, WrongShapes) {
  for (const std::vector<int64_t>& sizes :
       std::vector<std::vector<int64_t>>{{17}, {1, 16}, {16, 1}, {}, {0}}) {
    tensor(kNorm) = torch::ones(sizes);
    write_tensors(tensors_);
    expect_refused({std::string(kNorm) + " has shape [", "but config.json wants [16]"});
  }
}

TEST_F(DamagedModel, WrongDtypes) {
  const at::Tensor before = tensor(kNorm);
  for (const at::ScalarType dtype : {at::kLong, at::kInt, at::kShort, at::kChar, at::kByte, at::kBool}) {
    tensor(kNorm) = before.to(dtype);
    write_tensors(tensors_);
    expect_refused({std::string(kNorm) + " has dtype ", "but weights are floating point"});
  }
  // Any floating point is taken, and becomes float32.
  const at::Tensor odd = before * 1.2345678;
  for (const at::ScalarType dtype : {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16}) {
    tensor(kNorm) = odd.to(dtype);
    write_tensors(tensors_);
    const at::Tensor loaded = load_model(path()).blt->local_decoder->norm->weight;
    EXPECT_EQ(loaded.scalar_type(), at::kFloat);
    EXPECT_TRUE(torch::equal(loaded, odd.to(dtype).to(torch::kFloat)));
  }
}

TEST_F(DamagedModel, WeightsCutShort) {
  const std::string whole = content_of(path() / "model.safetensors");
  for (size_t size = 0; size < whole.size(); size += 1 + whole.size() / 100) {
    SCOPED_TRACE(size);
    write_content(path() / "model.safetensors", whole.substr(0, size));
    expect_refused({"model.safetensors@"});
  }
  std::filesystem::remove(path() / "model.safetensors");
  expect_refused({"has no weights: neither model.safetensors nor model.safetensors.index.json"});
  std::filesystem::create_directory(path() / "model.safetensors");
  expect_refused({"model.safetensors: cannot read: Is a directory"});
}

TEST_F(DamagedModel, ConfigsThatAreNoJson) {
  const std::string whole = config_.dump(2);
  for (size_t size = 0; size < whole.size(); size += 1 + whole.size() / 200)
    expect_config_refused(whole.substr(0, size), {"config.json:", "is not valid JSON"});
  for (const char* text : {"[1]", "null", "3", "\"blt\""})
    expect_config_refused(text, {"config.json: is no JSON object"});
  expect_config_refused(std::string(1'000'000, '['), {"config.json:1: is not valid JSON", "nested too deep"});
  expect_config_refused(whole + whole, {"is not valid JSON"});
  expect_config_refused(whole.substr(0, whole.size() - 2) + ",\n\"cross_attn_k\": 2}",
                        {"\"cross_attn_k\" stands there twice"});
  expect_config_refused("{\"model_type\": \"blt\", \"a\": \"\xff\"}", {"is not valid JSON"});
  std::filesystem::remove(path() / "config.json");
  expect_refused({"model: is no model directory: it has no config.json"});
  std::filesystem::create_directory(path() / "config.json");
  expect_refused({"config.json: cannot read: Is a directory"});
}

TEST_F(DamagedModel, ConfigsOfOtherModels) {
  expect_config_refused("{}", {"config.json: model_type is missing"});
  expect_config_refused("/model_type", 3, {"model_type is missing or no text"});
  expect_config_refused("/model_type", "llama", {"model_type is \"llama\", but libblt reads blt,"});
  expect_config_refused("/model_type", "libblt", {"the key libblt is missing"});
  expect_config_refused("/libblt", json::object(), {"has the key libblt, but model_type \"blt\""});
  expect_config_refused("/model_type", "blt_patcher", {"holds an entropy model alone"});
}

TEST_F(DamagedModel, SettingsOfWrongTypes) {
  expect_config_refused("/encoder_config/hidden_size", "wide",
                        {"config.json: encoder_config.hidden_size is \"wide\", but must be an integer"});
  expect_config_refused("/encoder_config/hidden_size", 16.5, {"encoder_config.hidden_size is 16.5"});
  expect_config_refused("/encoder_config/hidden_size", nullptr, {"encoder_config.hidden_size is null"});
  expect_config_refused("/encoder_config/hidden_size", 18446744073709551615u,
                        {"encoder_config.hidden_size is 18446744073709551615"});
  expect_config_refused("/encoder_config", 3, {"encoder_config is 3, but must be an object"});
  expect_config_refused("/patcher_config", json::array(),
                        {"patcher_config is a list, but must be an object"});
  expect_config_refused("/global_config/rope_parameters", "default",
                        {"global_config.rope_parameters is \"default\""});
  expect_config_refused("/global_config/rope_parameters/rope_theta", "big",
                        {"global_config.rope_parameters.rope_theta is \"big\", but must be a number"});
  expect_config_refused("/decoder_config/cross_attn_all_layers", 1,
                        {"decoder_config.cross_attn_all_layers is 1, but must be true or false"});
  expect_config_refused("/encoder_hash_byte_group_size", 3,
                        {"encoder_hash_byte_group_size is 3, but must be a list"});
  expect_config_refused("/encoder_hash_byte_group_size", json({3, "4"}),
                        {"encoder_hash_byte_group_size is \"4\""});
  expect_config_refused("/patching_mode", 1, {"patching_mode is 1, but must be text"});
  // One mistake, one complaint: nothing is compared with what could not be read.
  write_config("/encoder_config/hidden_size", "wide");
  const std::string said = message_of([&] { load_model(path()); });
  EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 0) << said;
  // All at once.
  json changed = config_;
  changed["encoder_config"]["hidden_size"] = "wide";
  changed["max_patch_length"] = "long";
  changed["patcher_config"]["hidden_act"] = "gelu";
  expect_config_refused(changed.dump(), {"config.json: encoder_config.hidden_size",
                                         "\n" + path().string() + "/config.json: max_patch_length",
                                         "patcher_config.hidden_act"});
}

TEST_F(DamagedModel, SettingsThatLibbltDoesNotCompute) {
  for (const char* section : {"encoder_config", "decoder_config", "global_config", "patcher_config"}) {
    const std::string pointer = std::string("/") + section, path = section;
    expect_config_refused(pointer + "/hidden_act", "gelu",
                          {path + ".hidden_act is \"gelu\", but libblt has only silu"});
    expect_config_refused(pointer + "/rope_parameters/rope_type", "llama3",
                          {path + ".rope_parameters.rope_type is \"llama3\""});
    expect_config_refused(pointer + "/rope_scaling", {{"type", "linear"}, {"factor", 2.0}},
                          {path + ".rope_scaling.rope_type is \"linear\""});
    expect_config_refused(pointer + "/head_dim", 5,
                          {path + ".head_dim is 5, but libblt's heads share the width"});
  }
  expect_config_refused("/patching_threshold", nullptr, {"patching_threshold is null"});
  expect_config_refused("/patch_size", nullptr, {"patch_size is null"});
  expect_config_refused("/vocab_size", 300, {"vocab_size is 300, but libblt's vocabulary has 260"});
  expect_config_refused("/encoder_config/vocab_size", 256, {"encoder_config.vocab_size is 256"});
  expect_config_refused("/decoder_config/hidden_size", 32,
                        {"decoder_config.hidden_size is 32", "of width 16"});
  expect_config_refused("/decoder_config/hidden_size_global", 64,
                        {"decoder_config.hidden_size_global is not"});
  expect_config_refused("/decoder_config/cross_attn_k", 3,
                        {"decoder_config.cross_attn_k is 3, but the model's cross_attn_k is 2"});
  expect_config_refused("/local_attention_window_len", 0,
                        {"local_attention_window_len must be at least 1, or null"});
  expect_config_refused("/patcher_config/sliding_window", -5,
                        {"patcher_config.sliding_window must be at least 1, or null"});
}

TEST_F(DamagedModel, SettingsOutOfBounds) {
  // Said in the words of the file.
  expect_config_refused("/encoder_config/num_hidden_layers", -1,
                        {"config.json: encoder_config.num_hidden_layers must be at least 1, is -1"});
  expect_config_refused("/global_config/num_hidden_layers", 0,
                        {"config.json: global_config.num_hidden_layers must be at least 1"});
  expect_config_refused("/patcher_config/num_attention_heads", -2,
                        {"config.json: patcher_config.num_attention_heads must be at least 1"});
  expect_config_refused("/decoder_config/num_attention_heads", 3,
                        {"config.json: decoder_config.num_attention_heads: 3 heads do not cut the width 16"});
  expect_config_refused("/decoder_config/num_key_value_heads", 0,
                        {"config.json: decoder_config.num_key_value_heads must be at least 1"});
  expect_config_refused("/global_config/num_key_value_heads", 3,
                        {"config.json: global_config.num_key_value_heads: 3 does not divide"});
  expect_config_refused("/patcher_config/intermediate_size", -8,
                        {"config.json: patcher_config.intermediate_size must be at least 1"});
  expect_config_refused("/encoder_config/rms_norm_eps", 0,
                        {"config.json: encoder_config.rms_norm_eps must be above 0"});
  expect_config_refused("/decoder_config/rope_parameters/rope_theta", -1.0,
                        {"config.json: decoder_config.rope_theta must be above 0"});
  expect_config_refused("/encoder_hash_byte_group_vocab", 0,
                        {"config.json: encoder_hash_byte_group_vocab must be between 1 and"});
  expect_config_refused("/encoder_hash_byte_group_vocab", 2000000000,
                        {"config.json: encoder_hash_byte_group_vocab", "more than 2^31 - 1 rows"});
  expect_config_refused("/encoder_hash_byte_group_size", json({3, 0}),
                        {"config.json: encoder_hash_byte_group_size"});
  expect_config_refused("/encoder_hash_byte_group_nb_functions", -1,
                        {"config.json: encoder_hash_byte_group_nb_functions must be between 1 and 64"});
  expect_config_refused("/max_patch_length", 0, {"config.json: max_patch_length must be at least 1"});
  // Numbers that no machine could build a model from.
  expect_config_refused("/global_config/num_hidden_layers", 1000000000000,
                        {"config.json: wants 1000000000", "layers, but the weights have only"});
  expect_config_refused("/patcher_config/num_hidden_layers", 9223372036854775807, {"config.json: wants "});
  expect_config_refused("/global_config/intermediate_size", 9223372036854775807, {"config.json"});
  expect_config_refused("/patcher_config/hidden_size", 4611686018427387904, {"config.json"});
}

TEST_F(DamagedModel, MissingSettingsAreThoseOfTransformers) {
  // Absent: the released models' sizes, which these weights do not have.
  for (const char* section : {"encoder_config", "decoder_config", "global_config", "patcher_config"}) {
    json changed = config_;
    changed.erase(section);
    expect_config_refused(changed.dump(), {});
  }
  expect_config_refused("{\"model_type\": \"blt\"}", {"tensors do not fit config.json"});
  json changed = config_;
  for (const char* key : {"patch_in_forward", "patching_mode", "patch_size", "patching_threshold",
                          "max_patch_length", "local_attention_window_len", "tie_word_embeddings",
                          "encoder_hash_byte_group_nb_functions", "use_cache"})
    changed.erase(key);
  changed["patcher_config"].erase("sliding_window");
  for (const char* section : {"encoder_config", "decoder_config", "global_config", "patcher_config"})
    for (const char* key :
         {"rope_parameters", "rms_norm_eps", "dropout", "hidden_act", "num_key_value_heads", "vocab_size"})
      changed[section].erase(key);
  write_content(path() / "config.json", changed.dump());
  const ModelConfig config = load_model(path()).config;
  EXPECT_EQ(std::get<EntropyPatching>(config.patching.rule).threshold, 1.335442066192627);
  EXPECT_EQ(config.patching.max_patch_length, std::nullopt);
  EXPECT_EQ(config.blt.window, 512);
  EXPECT_EQ(config.entropy_model->window, 512);
  EXPECT_EQ(config.blt.local_decoder.rope_theta, 5e5);
  EXPECT_EQ(config.entropy_model->rope_theta, 1e4);
  EXPECT_EQ(config.blt.local_encoder.norm_eps, 1e-5);
  EXPECT_EQ(config.blt.latent_transformer.num_kv_heads(), 4);
}

TEST_F(DamagedModel, OlderSpellingsOfRotaryPositions) {
  json changed = config_;
  changed["encoder_config"].erase("rope_parameters");
  changed["encoder_config"]["rope_theta"] = 123.0;
  changed["decoder_config"]["rope_theta"] = 456.0;  // rope_parameters' own goes first
  changed["global_config"]["rope_scaling"] = {{"type", "default"}, {"rope_theta", 789.0}};
  changed["patcher_config"]["rope_scaling"] = nullptr;
  write_content(path() / "config.json", changed.dump());
  const ModelConfig config = read_model_config(path());
  EXPECT_EQ(config.blt.local_encoder.rope_theta, 123.0);
  EXPECT_EQ(config.blt.local_decoder.rope_theta, 5e5);
  EXPECT_EQ(config.blt.latent_transformer.rope_theta, 789.0);
  EXPECT_EQ(config.entropy_model->rope_theta, 1e4);
}

TEST_F(DamagedModel, WithoutPatchingInForward) {
  write_config("/patch_in_forward", false);
  expect_refused({"\"model.patcher.embed_tokens.weight\" [260, 16] is not part of this model"});
  write_tensors(without("model.patcher."));
  const LoadedModel loaded = load_model(path());
  EXPECT_TRUE(std::holds_alternative<BytePatching>(loaded.config.patching.rule));
  EXPECT_TRUE(loaded.entropy_model.is_empty());
  EXPECT_FALSE(loaded.config.entropy_model.has_value());
}

TEST_F(DamagedModel, PatchingModesThatTransformersTurnsIntoBytes) {
  for (const char* mode : {"space", "static", "bpe", "byte", ""}) {
    write_config("/patching_mode", mode);
    const LoadedModel loaded = load_model(path());
    EXPECT_TRUE(std::holds_alternative<BytePatching>(loaded.config.patching.rule)) << mode;
    EXPECT_FALSE(loaded.entropy_model.is_empty());
  }
}

TEST_F(DamagedModel, TiedEmbeddings) {
  write_config("/tie_word_embeddings", true);
  expect_refused(
      {"lm_head.weight and model.local_encoder.embed_tokens.weight are tied in config.json, but differ"});
  tensor("lm_head.weight") = tensor("model.local_encoder.embed_tokens.weight").clone();
  write_tensors(tensors_);
  const at::Tensor& table = tensor("lm_head.weight");
  EXPECT_TRUE(torch::equal(load_model(path()).blt->local_encoder->embedding->byte_table, table));
  for (const char* name :
       {"lm_head.weight", "model.local_encoder.embed_tokens.weight"}) {  // either name will do
    write_tensors(without(name));
    EXPECT_TRUE(torch::equal(load_model(path()).blt->local_encoder->embedding->byte_table, table));
  }
  write_config("/tie_word_embeddings", false);
  write_tensors(without("lm_head.weight"));
  expect_refused({"lm_head.weight [260, 16] is missing"});
}

TEST_F(DamagedModel, OwnKeyIsCheckedAsARunsConfig) {
  const auto ours = folder_ / "ours";
  LoadedModel model = model_;
  model.config.patching.rule = SpacePatching();
  save_model(ours, model);
  std::filesystem::remove_all(path());
  std::filesystem::rename(ours, path());
  config_ = json::parse(content_of(path() / "config.json"));
  expect_config_refused(
      "/libblt/blt/local_encoder/layerz", 3,
      {"config.json:", "libblt.blt.local_encoder.layerz is not a known key (did you mean layers?)"});
  expect_config_refused("/libblt/patching/rule/kind", "spaces", {"config.json:", "libblt.patching.rule"});
  expect_config_refused("/libblt/blt/window", "far", {"libblt.blt.window"});
  expect_config_refused("/libblt/blt/window", -1, {"libblt.blt.window must be at least 0"});
  expect_config_refused("/libblt/blt/local_decoder/heads", 5,
                        {"libblt.blt.local_decoder.heads: 5 heads do not cut"});
  expect_config_refused("/libblt", 3, {"config.json"});
  expect_config_refused("/libblt", json::object(),
                        {"do not fit config.json"});  // all defaults: another shape
  json changed = config_;
  changed["libblt"]["blt"].erase("window");
  write_content(path() / "config.json", changed.dump());
  EXPECT_EQ(load_model(path()).config.blt.window, BltConfig().window);
}

// The model in two files and an index, as transformers writes large ones.
class ShardedModel : public DamagedModel {
 protected:
  ShardedModel() {
    std::filesystem::remove(path() / "model.safetensors");
    for (size_t i = 0; i < tensors_.size(); ++i) {
      const std::string name = i % 2 == 0 ? kFirst : kSecond;
      shards_[name].push_back(tensors_[i]);
      index_["weight_map"][tensors_[i].first] = name;
    }
    index_["metadata"] = {{"total_size", 1}};
    write();
  }

  void write() {
    for (const auto& [name, tensors] : shards_) write_safetensors(path() / name, tensors);
    write_content(path() / "model.safetensors.index.json", index_.dump());
  }

  static constexpr const char* kFirst = "model-00001-of-00002.safetensors";
  static constexpr const char* kSecond = "model-00002-of-00002.safetensors";
  std::map<std::string, NamedTensors> shards_;
  json index_;
};

TEST_F(ShardedModel, Loads) {
  const LoadedModel loaded = load_model(path());
  const auto parameters = loaded.blt->named_parameters();
  for (const auto& item : model_.blt->named_parameters())
    EXPECT_TRUE(torch::equal(parameters[item.key()], item.value())) << item.key();
  const auto of_entropy_model = load_entropy_model(path())->named_parameters();
  for (const auto& item : model_.entropy_model->named_parameters())
    EXPECT_TRUE(torch::equal(of_entropy_model[item.key()], item.value())) << item.key();
}

TEST_F(ShardedModel, RefusesMissingAndDamagedShards) {
  const std::string whole = content_of(path() / kSecond);
  std::filesystem::remove(path() / kSecond);
  expect_refused({"index.json: the shard model-00002-of-00002.safetensors is missing, which holds tensor"});
  write_content(path() / kSecond, whole.substr(0, whole.size() / 2));
  expect_refused({"model-00002-of-00002.safetensors@", "cut short"});
}

TEST_F(ShardedModel, RefusesAnIndexThatDoesNotFit) {
  const json before = index_;
  const auto expect = [&](const std::vector<std::string>& texts) {
    write();
    expect_refused(texts);
    index_ = before;
  };
  index_["weight_map"][kNorm] = index_["weight_map"][kNorm] == kFirst ? kSecond : kFirst;
  expect(
      {"has no tensor \"model.local_decoder.norm.weight\", which model.safetensors.index.json says it "
       "holds"});
  index_["weight_map"].erase(kNorm);
  expect(
      {"model.safetensors.index.json does not say that tensor \"model.local_decoder.norm.weight\" is here"});
  index_["weight_map"]["none"] = kFirst;
  expect({"has no tensor \"none\""});
  shards_[kFirst].push_back({"more", torch::ones({2})});
  index_["weight_map"]["more"] = kFirst;
  expect(
      {"model.safetensors.index.json: 1 of the model's tensors", "\"more\" [2] is not part of this model"});
  shards_[kFirst].pop_back();
  for (const json& shard : {json("../model/" + std::string(kFirst)), json((path() / kFirst).string()),
                            json(".."), json("."), json(""), json(3), json(nullptr), json::array({"a"})}) {
    SCOPED_TRACE(shard.dump());
    index_["weight_map"][kNorm] = shard;
    expect({"is no name of a file in this folder"});
  }
  index_["weight_map"] = 3;
  expect({"weight_map is missing or no object"});
  index_ = json::array();
  expect({"weight_map is missing or no object"});
  write();
  write_content(path() / "model.safetensors.index.json", "{\"weight_map\": {");
  expect_refused({"model.safetensors.index.json:1: is not valid JSON"});
}

TEST_F(ShardedModel, OneFileGoesFirst) {  // as in transformers
  write_safetensors(path() / "model.safetensors", tensors_);
  write_content(path() / "model.safetensors.index.json", "nonsense");
  EXPECT_FALSE(load_model(path()).blt.is_empty());
}

}  // namespace
}  // namespace blt
