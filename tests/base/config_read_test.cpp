#include <string>

#include "base/example_config.h"
#include "blt/base/config_io.h"

namespace blt_test {

namespace {

ExampleConfig parse(const std::string& text) { return blt::parse_config<ExampleConfig>(text, "run.yaml"); }
std::string problems(const std::string& text) {
  return error_of([&] { parse(text); });
}

TEST(ConfigRead, AbsentKeysKeepTheirDefaults) {
  const ExampleConfig run = parse("steps: 7");
  EXPECT_EQ(run.steps, 7);
  EXPECT_EQ(run.rate, 3e-4);
  EXPECT_EQ(run.sizes, (std::vector<int64_t>{3, 4, 5}));
  EXPECT_EQ(run.threshold, 1.5);
}

TEST(ConfigRead, ReadsEveryTypeOfField) {
  const ExampleConfig run = parse(R"(
name: yes we can
steps: 500_000
rate: 1e-5
tied: true
color: blue
kv_heads: 2
threshold: null
sizes: [1, 64]
tags:
  - plain
  - "12"
  - ''
encoder: {dim: 8, heads: 2}
decoder:
  dim: 8
sources:
  - path: a.txt
  - {path: /b.txt, weight: 2}
schedule:
  kind: constant
)");
  EXPECT_EQ(run.name, "yes we can");
  EXPECT_EQ(run.steps, 500000);
  EXPECT_EQ(run.rate, 1e-5);
  EXPECT_TRUE(run.tied);
  EXPECT_EQ(run.color, Color::kBlue);
  EXPECT_EQ(run.kv_heads, 2);
  EXPECT_EQ(run.threshold, std::nullopt);
  EXPECT_EQ(run.sizes, (std::vector<int64_t>{1, 64}));
  EXPECT_EQ(run.tags, (std::vector<std::string>{"plain", "12", ""}));
  EXPECT_EQ(run.encoder.heads, 2);
  ASSERT_TRUE(run.decoder.has_value());
  EXPECT_EQ(run.decoder->dim, 8);
  EXPECT_EQ(run.decoder->heads, 4);
  ASSERT_EQ(run.sources.size(), 2u);
  EXPECT_EQ(run.sources[0].weight, 1.0);
  EXPECT_EQ(run.sources[1].path, "/b.txt");
  EXPECT_TRUE(std::holds_alternative<Constant>(run.schedule));
}

TEST(ConfigRead, ThreeMistakesAreThreeLinesInTheOrderOfTheFile) {
  EXPECT_EQ(problems("sources: [{path: a}]\n"
                     "rate: fast\n"
                     "encoder:\n"
                     "  dimm: 3\n"
                     "  heads: 0\n"),
            "run.yaml:2: rate must be a number, is fast\n"
            "run.yaml:4: encoder.dimm is not a known key (did you mean dim?)\n"
            "run.yaml:5: encoder.heads must be at least 1, is 0");
}

TEST(ConfigRead, KeysFarFromAllOthersListTheKnownOnes) {
  EXPECT_EQ(problems("encoder: {quality: 3}"),
            "run.yaml:1: encoder.quality is not a known key (known keys: dim, heads)");
  EXPECT_EQ(problems("tsep: 3"), "run.yaml:1: tsep is not a known key (did you mean steps?)");
}

TEST(ConfigRead, WrongTypesSayWhatIsWantedAndWhatIsThere) {
  EXPECT_EQ(problems("steps: 1e6"), "run.yaml:1: steps must be an integer, is 1e6");
  EXPECT_EQ(problems("steps: \"10\""), "run.yaml:1: steps must be an integer, is \"10\"");
  EXPECT_EQ(problems("steps: 99999999999999999999"),
            "run.yaml:1: steps does not fit in 64 bits, is 99999999999999999999");
  EXPECT_EQ(problems("rate: nan"), "run.yaml:1: rate must be a number, is nan");
  EXPECT_EQ(problems("rate: 1.5x"), "run.yaml:1: rate must be a number, is 1.5x");
  EXPECT_EQ(problems("tied: yes"), "run.yaml:1: tied must be true or false, is yes");
  EXPECT_EQ(problems("tied:"), "run.yaml:1: tied must be true or false, is empty (null)");
  EXPECT_EQ(problems("sizes: 3"), "run.yaml:1: sizes must be a list ([] for none), is 3");
  EXPECT_EQ(problems("sizes: [3, x]"), "run.yaml:1: sizes.1 must be an integer, is x");
  EXPECT_EQ(problems("encoder: 3"),
            "run.yaml:1: encoder must be a section (lines of key: value; {} for the defaults), is 3");
  EXPECT_EQ(problems("name: [a]"), "run.yaml:1: name must be text (\"\" for none), is a list");
  EXPECT_EQ(problems("sources: [3]"),
            "run.yaml:1: sources.0 must be a section (lines of key: value; {} for the defaults), is 3");
}

TEST(ConfigRead, NothingIsNoSectionAndBracesAreTheDefaults) {
  const std::string wanted = " must be a section (lines of key: value; {} for the defaults), is empty (null)";
  EXPECT_EQ(problems("steps: 1\nencoder: null"), "run.yaml:2: encoder" + wanted);
  EXPECT_EQ(problems("encoder:\n#  dim: 8\nschedule:\n"),
            "run.yaml:1: encoder" + wanted + "\nrun.yaml:3: schedule" + wanted);
  EXPECT_FALSE(parse("decoder: null").decoder.has_value());
  EXPECT_FALSE(parse("decoder:").decoder.has_value());
  EXPECT_EQ(parse("encoder: {}").encoder.dim, 12);
  EXPECT_EQ(parse("decoder: {}").decoder->dim, 12);
  EXPECT_TRUE(std::holds_alternative<Cosine>(parse("schedule: {}").schedule));
}

TEST(ConfigRead, ValuesOutOfBoundsSayTheBounds) {
  EXPECT_EQ(problems("rate: 0"), "run.yaml:1: rate must be above 0, is 0");
  EXPECT_EQ(problems("sizes: [65]"), "run.yaml:1: sizes.0 must be between 1 and 64, is 65");
  EXPECT_EQ(problems("kv_heads: -1"), "run.yaml:1: kv_heads must be at least 1, is -1");
}

TEST(ConfigRead, UnknownNamesListTheKnownOnes) {
  EXPECT_EQ(problems("color: gren"),
            "run.yaml:1: color must be red, green or blue, is gren (did you mean green?)");
}

TEST(ConfigRead, TheKeyKindChoosesAndItsFieldsGoWithIt) {
  const ExampleConfig run = parse("schedule:\n  kind: cosine\n  warmup_steps: 5");
  EXPECT_EQ(std::get<Cosine>(run.schedule).warmup_steps, 5);
  EXPECT_EQ(std::get<Cosine>(parse("schedule: {warmup_steps: 6}").schedule).warmup_steps, 6);
  EXPECT_TRUE(std::holds_alternative<Constant>(parse("schedule: constant").schedule));
  EXPECT_EQ(problems("schedule:\n  kind: cosin"),
            "run.yaml:2: schedule.kind must be cosine or constant, is cosin (did you mean cosine?)");
  EXPECT_EQ(problems("schedule:\n  kind: constant\n  warmup_steps: 5"),
            "run.yaml:3: schedule.warmup_steps is not a known key (known keys: kind)");
}

TEST(ConfigRead, RepeatedKeysAreReported) {
  EXPECT_EQ(problems("encoder:\n  dim: 8\n  heads: 2\n  dim: 16"),
            "run.yaml:4: encoder.dim is given twice (first on line 2)");
}

TEST(ConfigRead, SectionsCheckTheirOwnRulesWithTheLineOfTheKey) {
  EXPECT_EQ(problems("encoder:\n  dim: 9\n  heads: 4"),
            "run.yaml:3: encoder.heads: 4 does not divide dim = 9");
  // The key at fault is not in the text: the section is.
  EXPECT_EQ(problems("encoder: {dim: 9}\nsteps: 3"), "run.yaml:1: encoder.heads: 4 does not divide dim = 9");
  EXPECT_EQ(problems("sources:\n  - path: a\n  - weight: 2"), "run.yaml:3: sources.1.path: is missing");
  EXPECT_EQ(problems("decoder:\n  dim: 8"), "run.yaml:2: decoder.dim: differs from encoder.dim");
}

TEST(ConfigRead, RulesNeverSeeValuesOutOfBoundsAndDoNotBlameThemTwice) {
  EXPECT_EQ(problems("encoder: {dim: 9, heads: 0}"), "run.yaml:1: encoder.heads must be at least 1, is 0");
  EXPECT_EQ(problems("sources: [{path: [a]}]"), "run.yaml:1: sources.0.path must be a path, is a list");
}

TEST(ConfigRead, BrokenYamlSaysTheLine) {
  EXPECT_NE(problems("steps: 3\nname: [a, b").find("not valid YAML"), std::string::npos);
  const std::string tab = problems("encoder:\n  dim: 8\n\theads: 2");
  EXPECT_EQ(tab.rfind("run.yaml:3: not valid YAML", 0), 0u) << tab;
  EXPECT_EQ(problems("a: *nothing").rfind("run.yaml:1: not valid YAML", 0), 0u);
  EXPECT_EQ(problems("a: &x [*x]").rfind("run.yaml:1: not valid YAML: an alias", 0), 0u);
  EXPECT_NE(problems(std::string(100000, '[')).find("not valid YAML"), std::string::npos);
  EXPECT_EQ(problems("steps: 3\n---\nsteps: 4"),
            "run.yaml:3: a second YAML document begins; a config is one document");
  EXPECT_EQ(problems("? [a]\n: 3"), "run.yaml:1: not valid YAML: a key must be text");
}

TEST(ConfigRead, TextWithoutSettingsIsAnError) {
  EXPECT_EQ(problems(""), "run.yaml: is empty; write settings as lines of key: value");
  EXPECT_EQ(problems("# only a comment\n"), "run.yaml: is empty; write settings as lines of key: value");
  EXPECT_EQ(problems("\nhello"), "run.yaml:2: must be lines of key: value at the top");
  EXPECT_EQ(parse("{}").steps, 1000);
}

TEST(ConfigRead, AliasesAreReadLikeWhatTheyName) {
  const ExampleConfig run = parse("encoder: &layers {dim: 16, heads: 2}\ndecoder: *layers");
  EXPECT_EQ(run.decoder->dim, 16);
}

TEST(ConfigRead, APartOfJsonIsReadWithTheLinesOfTheWhole) {
  const std::string json =
      "{\n  \"other\": {\"x\": 1e-05},\n  \"libblt\": {\n    \"steps\": 5,\n    \"color\": \"rde\"\n  }\n}";
  EXPECT_EQ(error_of([&] { blt::parse_config<ExampleConfig>(json, "config.json", "libblt"); }),
            "config.json:5: libblt.color must be red, green or blue, is \"rde\" (did you mean red?)");
  EXPECT_EQ(blt::parse_config<ExampleConfig>("{\"a\":{\"b\":{\"steps\":5}}}", "config.json", "a.b").steps, 5);
  EXPECT_EQ(error_of([&] { blt::parse_config<ExampleConfig>("{\"a\": 3}", "config.json", "libblt"); }),
            "config.json:1: there is no key libblt");
}

TEST(ConfigRead, PathsInAFileAreRelativeToItsFolder) {
  const TemporaryFolder folder;
  const auto file =
      folder.write("run.yaml", "out: ../runs\nsources: [{path: a.txt}, {path: /b}, {path: '-'}]");
  const ExampleConfig run = blt::load_config<ExampleConfig>(file, {"sources.1.path=c.txt"});
  EXPECT_EQ(run.out, folder.path().parent_path() / "runs");
  EXPECT_EQ(run.sources[0].path, folder / "a.txt");
  EXPECT_EQ(run.sources[1].path, std::filesystem::current_path() / "c.txt");
  EXPECT_EQ(run.sources[2].path, "-");
  EXPECT_EQ(parse("out: there").out, "there");
}

TEST(ConfigRead, AFileThatCannotBeReadSaysWhy) {
  const TemporaryFolder folder;
  EXPECT_EQ(error_of([&] { blt::load_config<ExampleConfig>(folder / "none.yaml"); }),
            (folder / "none.yaml").string() + ": cannot read: No such file or directory");
  EXPECT_EQ(error_of([&] { blt::load_config<ExampleConfig>(folder.path()); }),
            folder.path().string() + ": cannot read: Is a directory");
}

TEST(ConfigCheck, SettingsMadeInCodeAreCheckedToo) {
  ExampleConfig run;
  EXPECT_NO_THROW(blt::check_config(run, "run"));
  run.encoder.heads = 0;
  run.sizes = {3, 65};
  EXPECT_EQ(error_of([&] { blt::check_config(run, "run"); }),
            "run: sizes.1 must be between 1 and 64, is 65\nrun: encoder.heads must be at least 1, is 0");
  run.sizes = {};
  run.encoder.heads = 5;
  EXPECT_EQ(error_of([&] { blt::check_config(run, "run"); }),
            "run: encoder.heads: 5 does not divide dim = 12");
}

}  // namespace

}  // namespace blt_test
