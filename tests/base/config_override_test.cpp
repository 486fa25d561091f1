#include <string>
#include <vector>

#include "base/example_config.h"
#include "blt/base/config_io.h"

namespace blt_test {

namespace {

class ConfigOverride : public testing::Test {
 protected:
  ExampleConfig load(const std::vector<std::string>& overrides) const {
    return blt::load_config<ExampleConfig>(file_, overrides);
  }
  std::string problems(const std::vector<std::string>& overrides) const {
    return error_of([&] { load(overrides); });
  }

  TemporaryFolder folder_;
  std::filesystem::path file_ =
      folder_.write("run.yaml", "steps: 5\nsources:\n  - path: /a\n    weight: 2\n");
};

TEST_F(ConfigOverride, ReplacesWhatTheFileSaysAndLaterOnesWin) {
  EXPECT_EQ(load({"steps=6", "steps=7"}).steps, 7);
  EXPECT_EQ(load({"encoder.dim=16"}).encoder.dim, 16);
  EXPECT_EQ(load({"threshold=null"}).threshold, std::nullopt);
  EXPECT_EQ(load({"encoder={dim: 16, heads: 2}"}).encoder.heads, 2);
}

TEST_F(ConfigOverride, EntersListsOptionalSectionsAndVariants) {
  const ExampleConfig run = load(
      {"sources.0.path=/b", "sources.1.path=/c", "sizes.0=9", "decoder.heads=3", "schedule.kind=constant"});
  ASSERT_EQ(run.sources.size(), 2u);
  EXPECT_EQ(run.sources[0].path, "/b");
  EXPECT_EQ(run.sources[0].weight, 2.0);
  EXPECT_EQ(run.sources[1].path, "/c");
  EXPECT_EQ(run.sizes, (std::vector<int64_t>{9, 4, 5}));  // the default's other elements stay
  EXPECT_EQ(run.decoder->heads, 3);
  EXPECT_TRUE(std::holds_alternative<Constant>(run.schedule));
  EXPECT_EQ(std::get<Cosine>(load({"schedule.warmup_steps=1"}).schedule).warmup_steps, 1);
  EXPECT_EQ(load({"sizes=[]"}).sizes, std::vector<int64_t>{});
}

TEST_F(ConfigOverride, ASectionGivenWholeReplacesWhatTheFileSays) {
  const auto file = folder_.write("whole.yaml",
                                  "encoder: {dim: 16, heads: 2}\ndecoder: {dim: 16, heads: 8}\n"
                                  "schedule: {kind: cosine, warmup_steps: 7}\n");
  const auto with = [&](const std::string& text) { return blt::load_config<ExampleConfig>(file, {text}); };
  EXPECT_EQ(with("encoder={dim: 16}").encoder.heads, 4);
  EXPECT_EQ(with("decoder={dim: 16}").decoder->heads, 4);
  EXPECT_EQ(std::get<Cosine>(with("schedule={}").schedule).warmup_steps, 100);
  EXPECT_EQ(std::get<Cosine>(with("schedule=cosine").schedule).warmup_steps, 100);
  EXPECT_EQ(std::get<Cosine>(with("schedule.kind=cosine").schedule).warmup_steps, 7);
  EXPECT_FALSE(with("decoder=null").decoder.has_value());
  // What breaks a rule now is the override's fault, not that of a line that it replaced.
  const std::string said = error_of([&] { with("encoder={heads: 5}"); });
  EXPECT_NE(said.find("override encoder={heads: 5}: encoder.heads: 5 does"), said.npos) << said;
}

TEST_F(ConfigOverride, NullIsRefusedWhereASectionMustStand) {
  const std::string wanted = " must be a section (lines of key: value; {} for the defaults), is empty (null)";
  EXPECT_EQ(problems({"encoder=null", "schedule=null", "encoder="}),
            "override encoder=null: encoder" + wanted + "\noverride schedule=null: schedule" + wanted +
                "\noverride encoder=: encoder" + wanted);
}

TEST_F(ConfigOverride, TextIsTakenAsItIs) {
  EXPECT_EQ(load({"name=a: [b] # c=d"}).name, "a: [b] # c=d");
  EXPECT_EQ(load({"name="}).name, "");
  EXPECT_EQ(load({"name=\"x\\ny\""}).name, "x\ny");
  EXPECT_EQ(load({"tags=[a, b c]"}).tags, (std::vector<std::string>{"a", "b c"}));
}

TEST_F(ConfigOverride, ProblemsNameTheOverrideAndFollowThoseOfTheFile) {
  const auto file = folder_.write("bad.yaml", "stepz: 5\n");
  EXPECT_EQ(
      error_of([&] {
        blt::load_config<ExampleConfig>(
            file, {"encoder.dimm=3", "encoder.heads=0", "color=rad", "steps", "steps.x=3", "sizes.7=1",
                   "sizes.x=1", "sizes=[1", "schedule.kind=linear"});
      }),
      file.string() +
          ":1: stepz is not a known key (did you mean steps?)\n"
          "override encoder.dimm=3: encoder.dimm is not a known key (did you mean dim?)\n"
          "override encoder.heads=0: encoder.heads must be at least 1, is 0\n"
          "override color=rad: color must be red, green or blue, is rad (did you mean red?)\n"
          "override steps: is not of the form section.key=value\n"
          "override steps.x=3: steps.x is not a known key: steps is one value (integer)\n"
          "override sizes.7=1: sizes.7 is not an element of the list, which has 3 (count from 0; 3 appends)\n"
          "override sizes.x=1: sizes.x is not an element of the list, which has 3 (count from 0; 3 appends)\n"
          "override sizes=[1: sizes has a value that is not valid YAML: [1\n"
          "override schedule.kind=linear: schedule.kind must be cosine or constant, is linear");
}

TEST_F(ConfigOverride, RulesBlameTheOverrideThatBrokeThem) {
  EXPECT_EQ(problems({"encoder.heads=5"}),
            "override encoder.heads=5: encoder.heads: 5 does not divide dim = 12");
  EXPECT_EQ(problems({"sources.1.weight=3"}), file_.string() + ":3: sources.1.path: is missing");
}

}  // namespace

}  // namespace blt_test
