#include "blt/model/report.h"

#include <gtest/gtest.h>

#include <sstream>
#include <string>
#include <vector>

#include "blt/model/parameters.h"
#include "model/small_model.h"

namespace blt {
namespace {

BltConfig tiny_config() {
  BltConfig config = small_config();
  config.local_dim = 8;
  config.window = 4;
  config.ngram = {.sizes = {3, 4}, .rows = 10, .functions = 1};
  config.local_encoder.heads = config.local_decoder.heads = config.latent_transformer.heads = 2;
  config.local_encoder.layers = config.local_decoder.layers = 1;
  config.local_encoder.ffn_dim = config.local_decoder.ffn_dim = 16;
  config.latent_transformer.dim = 12;  // not 2 x 8: a projection stands in front
  config.latent_transformer.layers = 2;
  config.latent_transformer.ffn_dim = 24;
  return config;
}

EntropyModelConfig tiny_entropy_config() {
  EntropyModelConfig config;
  config.dim = 8;
  config.layers = 2;
  config.heads = 2;
  config.ffn_dim = 16;
  config.window = 0;
  return config;
}

constexpr CostContext kContext = {.sequence_bytes = 8, .mean_patch_bytes = 2};

TEST(ParameterReport, CountsATinyModelAsByHand) {
  const Blt model(tiny_config());
  const ParameterReport report = parameter_report(*model);
  EXPECT_EQ(report.ngram_tables, 2 * 10 * 8);
  EXPECT_EQ(report.byte_embeddings, 260 * 8);
  const int64_t local_layer = 4 * 8 * 8 + 3 * 8 * 16 + 2 * 8;
  const int64_t cross = 4 * 8 * 8 + 2 * 8;
  const int64_t encoder = 260 * 8 + 160 + local_layer + 8 * 16 + cross;
  const int64_t latent = 16 * 12 + 2 * (4 * 12 * 12 + 3 * 12 * 24 + 2 * 12);
  const int64_t decoder = 12 * 16 + cross + local_layer + 8;
  EXPECT_EQ(report.total, encoder + latent + decoder + 260 * 8);
  EXPECT_EQ(report.rest, report.total - 160 - 2080);
  ASSERT_EQ(report.children.size(), 4u);
  EXPECT_EQ(report.children[0].name, "local_encoder");
  EXPECT_EQ(report.children[0].parameters, encoder);
  EXPECT_EQ(report.children[0].ngram_tables, 160);
  EXPECT_EQ(report.children[1].parameters, latent);
  EXPECT_EQ(report.children[2].parameters, decoder);
  EXPECT_EQ(report.children[3].name, "lm_head");
  EXPECT_EQ(report.children[3].parameters, 260 * 8);
}

TEST(ModuleCosts, AreThoseOfATinyModelByHand) {
  // Windows of 4 in sequences of 8: queries see 1, 2, 3, 4, 4, 4, 4 and 4 keys. Latents: 4 patches, so 1 to 4.
  const double local_keys = 26.0 / 8.0;
  const double latent_keys = 10.0 / 4.0;
  const double local_attention = 2 * 4 * 64 + 4 * 8 * local_keys;
  const double local_mlp = 2 * 3 * 8 * 16;
  // A byte costs a key and a value; a patch two queries and two outputs, and half a patch is due to a byte.
  const double cross = 2 * 2 * 64 + 2 * 2 * 64 * 2 / 2.0 + 4 * 8 * 2;
  const std::vector<std::pair<std::string, double>> expected = {
      {"local_encoder.embedding.byte_table", 0},
      {"local_encoder.embedding.ngram_table", 0},
      {"local_encoder.layers x1 self_attn", local_attention},
      {"local_encoder.layers x1 mlp", local_mlp},
      {"local_encoder.layers x1 norms", 0},
      {"local_encoder.patch_embedding_projection", 2 * 8 * 16 / 2.0},
      {"local_encoder.cross_attn_layers x1", cross},
      {"latent_transformer.token_embedding_projection", 2 * 16 * 12 / 2.0},
      {"latent_transformer.layers x2 self_attn", 2 * (2 * 4 * 144 + 4 * 12 * latent_keys) / 2.0},
      {"latent_transformer.layers x2 mlp", 2 * (2 * 3 * 12 * 24) / 2.0},
      {"latent_transformer.layers x2 norms", 0},
      {"local_decoder.patch_embedding_projection", 2 * 12 * 16 / 2.0},
      {"local_decoder.cross_attn_layers x1",
       cross},  // the other way round, and as k = 2 bytes a patch: the same
      {"local_decoder.layers x1 self_attn", local_attention},
      {"local_decoder.layers x1 mlp", local_mlp},
      {"local_decoder.layers x1 norms", 0},
      {"local_decoder.norm", 0},
      {"lm_head", 2 * 8 * 260},
  };
  const Blt model(tiny_config());
  const std::vector<ModuleCost> costs = module_costs(*model, kContext);
  ASSERT_EQ(costs.size(), expected.size());
  int64_t parameters = 0;
  for (size_t i = 0; i < costs.size(); ++i) {
    EXPECT_EQ(costs[i].module, expected[i].first);
    EXPECT_DOUBLE_EQ(costs[i].flops, expected[i].second) << costs[i].module;
    parameters += costs[i].parameters;
  }
  EXPECT_EQ(parameters, parameter_report(*model).total);  // no parameter is missing from the table
  EXPECT_DOUBLE_EQ(flops_per_byte(*model, kContext), 11592);

  const EntropyModel entropy_model(tiny_entropy_config());
  EXPECT_DOUBLE_EQ(flops_per_byte(*entropy_model, kContext),
                   2 * (2 * 4 * 64 + 4 * 8 * 4.5 + local_mlp) + 2 * 8 * 260);
}

TEST(ModuleCosts, CoverEveryParameterOfEveryOption) {
  for (const auto& [name, config] : option_configs()) {
    const Blt model(config);
    int64_t parameters = 0;
    for (const ModuleCost& cost : module_costs(*model, kContext)) parameters += cost.parameters;
    EXPECT_EQ(parameters, parameter_report(*model).total) << name;
  }
}

TEST(ModuleCosts, FollowTheOptions) {
  BltConfig config = tiny_config();
  const double base = flops_per_byte(*Blt(config), kContext);
  config.tie_embeddings = true;
  EXPECT_DOUBLE_EQ(flops_per_byte(*Blt(config), kContext), base);  // the output product is still there
  config = tiny_config();
  config.local_encoder.feed_forward = false;
  EXPECT_DOUBLE_EQ(flops_per_byte(*Blt(config), kContext), base - 2 * 3 * 8 * 16);
  config = tiny_config();
  config.latent_transformer.kv_heads = 1;  // keys and values are half as wide
  EXPECT_DOUBLE_EQ(flops_per_byte(*Blt(config), kContext), base - 2 * (2 * 2 * 12 * 6) / 2.0);
  config = tiny_config();
  config.window = 0;  // 1 to 8 keys, in two stacks
  EXPECT_DOUBLE_EQ(flops_per_byte(*Blt(config), kContext), base + 2 * 4 * 8 * (4.5 - 26.0 / 8.0));
}

TEST(ModelTable, IsAlignedAndEndsWithTotalsWithAndWithoutTheEntropyModel) {
  const Blt model(tiny_config());
  const EntropyModel entropy_model(tiny_entropy_config());
  const std::string table = model_table(*model, &*entropy_model, kContext);
  std::vector<std::string> lines;
  std::istringstream stream(table);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  ASSERT_EQ(lines.size(), 1u + 18 + 2 + 6 + 2 + 1) << table;
  for (size_t i = 0; i + 1 < lines.size(); ++i) EXPECT_EQ(lines[i].size(), lines[0].size()) << lines[i];
  EXPECT_EQ(lines[19].substr(0, 6), "total ");
  EXPECT_NE(lines[19].find(" 9,624 "), std::string::npos) << lines[19];
  EXPECT_NE(lines[19].find(" 11,592"), std::string::npos) << lines[19];
  EXPECT_EQ(model_summary(*model, kContext), "9,624 parameters, 11,592 FLOPs a byte");
  EXPECT_NE(lines[20].find(" 34,776"), std::string::npos) << lines[20];  // three times as much in training
  EXPECT_NE(lines[27].find("total with the entropy model"), std::string::npos);
  EXPECT_NE(lines[27].find(" 15,104 "), std::string::npos) << lines[27];
  EXPECT_NE(lines[27].find(" 18,600"), std::string::npos) << lines[27];
}

// 4.5 billion parameters: would not fit into this machine if anything were allocated.
TEST(ParameterReport, GivesThePublishedCountsWithoutMemory) {
  const MetaParameters meta;
  BltConfig config;  // the released 1B model
  config.local_dim = 1024;
  config.local_encoder.heads = config.local_decoder.heads = 16;
  config.local_decoder.layers = 9;
  config.latent_transformer.dim = 2048;
  config.latent_transformer.layers = 25;
  config.latent_transformer.heads = 16;
  const Blt model(config);
  for (const auto& parameter : model->named_parameters())
    EXPECT_TRUE(parameter.value().is_meta()) << parameter.key();
  const ParameterReport report = parameter_report(*model);
  EXPECT_EQ(report.total, 4'533'879'808);
  EXPECT_EQ(report.ngram_tables, 3'072'012'288);
  EXPECT_EQ(report.children[0].parameters - report.ngram_tables, 19'406'848);
  EXPECT_EQ(report.children[1].parameters, 1'284'608'000);
  // The published decoder includes the output matrix.
  EXPECT_EQ(report.children[2].parameters + report.children[3].parameters, 157'852'672);

  const EntropyModel entropy_model{EntropyModelConfig()};
  EXPECT_EQ(parameter_report(*entropy_model).total, 99'512'064);
  EXPECT_NE(model_table(*model, &*entropy_model, CostContext()).find("4,633,391,872"), std::string::npos);

  config.local_dim = 1280;  // the released 7B model
  config.cross_attn_k = 4;
  config.local_encoder.heads = config.local_decoder.heads = 20;
  config.local_decoder.layers = 6;
  config.latent_transformer.dim = 4096;
  config.latent_transformer.layers = 32;
  config.latent_transformer.heads = 32;
  EXPECT_EQ(parameter_report(*Blt(config)).total, 10'553'570'560);
}

}  // namespace
}  // namespace blt
