// What is written about the settings holds: docs/config.md is current, every file in configs/ loads, and every field has a reader.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>

#include "blt/base/config_io.h"
#include "blt/base/files.h"
#include "blt/model/parameters.h"
#include "blt/model/report.h"
#include "blt/train/run.h"
#include "blt/train/run_config.h"

namespace blt {
namespace {

const std::filesystem::path kRoot = std::filesystem::path(BLT_GOLDEN_DIR).parent_path().parent_path();

TEST(ConfigPage, IsWhatTheFieldListsSay) {
  const std::string page =
      "# Settings\n\nEvery key of a run (`blt_train CONFIG.yaml [section.key=value ...]`), generated from "
      "the field lists in "
      "the headers. To write it anew: `BLT_WRITE_DOCS=1 ctest --preset dev -R ConfigPage`.\n\n" +
      config_markdown(describe<RunConfig>());
  const std::filesystem::path path = kRoot / "docs/config.md";
  if (std::getenv("BLT_WRITE_DOCS") != nullptr) write_file(path, page);
  EXPECT_EQ(read_file(path), page) << "run BLT_WRITE_DOCS=1 ctest -R ConfigPage";
}

TEST(ConfigFiles, AllLoad) {
  int found = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(kRoot / "configs")) {
    if (entry.path().extension() != ".yaml") continue;
    ++found;
    EXPECT_NO_THROW({
      const std::string table = cost_table(load_config<RunConfig>(entry.path()));
      EXPECT_NE(table.find("\ntotal, in training "), std::string::npos) << entry.path() << table;
    }) << entry.path();
  }
  EXPECT_EQ(found, 13);
}

TEST(ConfigFiles, ThePapersSizesAreWhatTheirNamesSay) {
  const std::vector<std::pair<std::string, double>> sizes = {
      {"400m", 0.4e9}, {"1b", 1e9}, {"2b", 2e9}, {"4b", 4e9}, {"8b", 8e9}};
  for (const auto& [name, parameters] : sizes) {
    const auto config = load_config<RunConfig>(kRoot / "configs/blt" / (name + ".yaml"));
    const MetaParameters shapes_only;
    const ParameterReport report = parameter_report(*Blt(*config.model));
    // The paper names models by what is multiplied; second-hand sizes hit their names only roughly.
    EXPECT_GT(static_cast<double>(report.rest), 0.75 * parameters) << name;
    EXPECT_LT(static_cast<double>(report.rest), 1.5 * parameters) << name;
    EXPECT_EQ(report.ngram_tables, 6 * 500002 * config.model->local_dim) << name;
    EXPECT_EQ(config.train.accumulate * config.data.batch_bytes.value(), 16 << 20) << name;
    EXPECT_NE(cost_table(config).find("\ntotal, in training "), std::string::npos) << name;
  }
  const std::string table = cost_table(load_config<RunConfig>(kRoot / "configs/entropy/paper.yaml"));
  EXPECT_NE(table.find("layers x14 self_attn"), std::string::npos) << table;
}

TEST(ConfigFields, AllHaveAReader) {
  // The sources, without the lists of fields themselves (which name each field as `self.name`).
  std::string code, sources;
  for (const char* folder : {"src", "include", "tools"})
    for (const auto& entry : std::filesystem::recursive_directory_iterator(kRoot / folder))
      if (entry.path().extension() == ".cpp" || entry.path().extension() == ".h") {
        std::string text = read_file(entry.path());
        text = std::regex_replace(text, std::regex(R"(//[^\n]*|"[^"\n]*"|\bself\.\w+)"), "");
        code += text;
        if (entry.path().extension() == ".cpp") sources += text;
      }
  std::set<std::string> names;
  for (const FieldDoc& field : describe<RunConfig>()) {
    std::string name = field.path.substr(field.path.find_last_of('.') + 1);
    name = name.substr(0, name.find_first_of("(["));
    names.insert(name);
  }
  ASSERT_GT(names.size(), 30U);
  names.erase("kind");  // says which section of a variant it is
  // A member of something, or of the section itself, which only its own functions name like that.
  for (const std::string& name : names)
    EXPECT_TRUE(std::regex_search(code, std::regex(R"((\.|->))" + name + R"(\b)")) ||
                std::regex_search(sources, std::regex(R"(\b)" + name + R"(\b)")))
        << name;
}

TEST(RunConfig, ReportsAllMistakesAtOnceWithTheirLines) {
  const std::string text =
      "output: out\n"
      "data: {sources: [{paths: [a.txt]}]}\n"
      "patching: {rule: {kind: entropy}}\n"
      "model:\n"
      "  local_dim: 100\n"
      "  local_encoder: {heads: 3}\n"
      "  latent_transformer: {dimm: 64}\n"
      "train:\n"
      "  steps: many\n";
  try {
    parse_config<RunConfig>(text, "run.yaml");
    FAIL() << "no error";
  } catch (const Error& error) {
    const std::string message = error.what();
    EXPECT_NE(message.find("run.yaml:7: model.latent_transformer.dimm"), std::string::npos) << message;
    EXPECT_NE(message.find("did you mean dim?"), std::string::npos) << message;
    EXPECT_NE(message.find("run.yaml:9: train.steps"), std::string::npos) << message;
  }
  // Rules between fields are looked at once the fields are right.
  try {
    parse_config<RunConfig>(
        "output: out\ndata: {sources: [{paths: [a.txt]}]}\nmodel:\n  local_dim: 100\n  local_encoder: "
        "{heads: 3}\n",
        "run.yaml");
    FAIL() << "no error";
  } catch (const Error& error) {
    const std::string message = error.what();
    EXPECT_NE(message.find("run.yaml:5: model.local_encoder.heads"), std::string::npos) << message;
    EXPECT_NE(message.find("entropy_model: is missing"), std::string::npos) << message;
  }
}

}  // namespace
}  // namespace blt
