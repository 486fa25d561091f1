#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>

#include "base/example_config.h"
#include "blt/base/config_io.h"
#include "blt/base/rng.h"

namespace blt_test {

namespace {

ExampleConfig unusual_run() {
  ExampleConfig run;
  run.name = "line\nbreak \"quoted\" \\ tab\t # : \x01 \x7f é null";
  run.steps = std::numeric_limits<int64_t>::max();
  run.rate = 0.1 + 0.2;
  run.tied = true;
  run.color = Color::kRed;
  run.kv_heads = 3;
  run.threshold = std::nullopt;
  run.sizes = {};
  run.tags = {"", "null", "~", "12", "true", "- a", "a: b", " space ", "[x]", "é"};
  run.out = "/a b/c";
  run.encoder = {24, 6};
  run.decoder = Layers{24, 8};
  run.sources = {{"/x", 1e-300}, {"y", 1e300}};
  run.schedule = Constant{};
  return run;
}

void expect_equal(const ExampleConfig& a, const ExampleConfig& b) {
  EXPECT_EQ(a.name, b.name);
  EXPECT_EQ(a.steps, b.steps);
  EXPECT_EQ(a.rate, b.rate);
  EXPECT_EQ(a.tied, b.tied);
  EXPECT_EQ(a.color, b.color);
  EXPECT_EQ(a.kv_heads, b.kv_heads);
  EXPECT_EQ(a.threshold, b.threshold);
  EXPECT_EQ(a.sizes, b.sizes);
  EXPECT_EQ(a.tags, b.tags);
  EXPECT_EQ(a.out, b.out);
  EXPECT_EQ(a.encoder.dim, b.encoder.dim);
  EXPECT_EQ(a.encoder.heads, b.encoder.heads);
  ASSERT_EQ(a.decoder.has_value(), b.decoder.has_value());
  if (a.decoder) {
    EXPECT_EQ(a.decoder->dim, b.decoder->dim);
    EXPECT_EQ(a.decoder->heads, b.decoder->heads);
  }
  ASSERT_EQ(a.sources.size(), b.sources.size());
  for (size_t i = 0; i < a.sources.size(); ++i) {
    EXPECT_EQ(a.sources[i].path, b.sources[i].path);
    EXPECT_EQ(a.sources[i].weight, b.sources[i].weight);
  }
  EXPECT_EQ(a.schedule.index(), b.schedule.index());
}

TEST(ConfigWrite, YamlShowsEveryFieldInTheOrderOfTheDescription) {
  ExampleConfig run;
  run.sources = {{"a.txt", 2}};
  EXPECT_EQ(blt::to_yaml(run), R"(name: "first try"
steps: 1000
rate: 0.0003
tied: false
color: green
kv_heads: null
threshold: 1.5
sizes: [3, 4, 5]
tags: []
out: runs
encoder:
  dim: 12
  heads: 4
decoder: null
sources:
  - path: a.txt
    weight: 2.0
schedule:
  kind: cosine
  warmup_steps: 100
)");
}

TEST(ConfigWrite, ReadingBackGivesTheSameSettings) {
  for (const ExampleConfig& run : {ExampleConfig{}, unusual_run()}) {
    expect_equal(blt::parse_config<ExampleConfig>(blt::to_yaml(run), "yaml"), run);
    expect_equal(blt::parse_config<ExampleConfig>(blt::to_json(run), "json"), run);
  }
}

TEST(ConfigWrite, JsonIsJsonToOthers) {
  const ExampleConfig run = unusual_run();
  const auto json = nlohmann::json::parse(blt::to_json(run));
  EXPECT_EQ(json["name"], run.name);
  EXPECT_EQ(json["steps"], run.steps);
  EXPECT_EQ(json["rate"].get<double>(), run.rate);
  EXPECT_TRUE(json["threshold"].is_null());
  EXPECT_EQ(json["tags"], run.tags);
  EXPECT_EQ(json["sources"][1]["weight"].get<double>(), 1e300);
  EXPECT_EQ(json["schedule"]["kind"], "constant");
}

TEST(ConfigWrite, EveryDoubleComesBackBitForBit) {
  blt::Rng rng(0, "doubles");
  std::vector<double> values = {0.0,
                                -0.0,
                                5e-324,
                                std::numeric_limits<double>::max(),
                                1e16,
                                1e-4,
                                123456789012345680.0,
                                std::numeric_limits<double>::infinity(),
                                -std::numeric_limits<double>::infinity()};
  for (int i = 0; i < 2000; ++i)
    values.push_back(std::ldexp(rng.uniform() - 0.5, static_cast<int>(rng.below(2000)) - 1000));
  for (const double value : values) {
    ExampleConfig run;
    run.threshold = value;
    for (const std::string& text : {blt::to_yaml(run), blt::to_json(run)}) {
      const auto back = blt::parse_config<ExampleConfig>(text, "text").threshold;
      ASSERT_TRUE(back.has_value());
      EXPECT_EQ(std::signbit(*back), std::signbit(value));
      EXPECT_EQ(*back, value);
    }
  }
}

TEST(ConfigCompare, NamesEverySettingThatDiffersWithBothValues) {
  const auto parse = [](const std::string& text) {
    return blt::parse_config<ExampleConfig>(text, "run.yaml");
  };
  const std::string same = "name: a\nsources: [{path: x}]\ndecoder: {dim: 12}\n";
  EXPECT_TRUE(blt::compare_configs(parse(same), parse(same)).empty());
  std::string text;
  for (const blt::ConfigDifference& difference : blt::compare_configs(
           parse(same), parse("name: b\nsources: [{path: x, weight: 2}]\nkv_heads: 2\nsizes: [3]\n"
                              "schedule: constant\ndecoder: {dim: 12, heads: 2}\n")))
    text += difference.path + ": " + difference.a + " -> " + difference.b + "\n";
  EXPECT_EQ(
      text,
      "name: a -> b\nkv_heads: null -> 2\nsizes: [3, 4, 5] -> [3]\ndecoder.heads: 4 -> 2\n"
      "sources.0.weight: 1.0 -> 2.0\nschedule: {kind: cosine, warmup_steps: 100} -> {kind: constant}\n");
}

}  // namespace

}  // namespace blt_test
