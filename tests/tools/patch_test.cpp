// blt_patch as a user runs it: the patches of the reference, in every form of output, and bad input.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "model/compare.h"
#include "tools/run_tool.h"

namespace blt {
namespace {

using nlohmann::json;

class BltPatch : public ToolTest {
 protected:
  BltPatch() {
    std::filesystem::copy(BLT_GOLDEN_DIR "/a_base", folder_ / "model");
    std::filesystem::remove(folder_ / "model" / "cases.safetensors");
    cases_ = read_tensors(BLT_GOLDEN_DIR "/a_base/cases.safetensors");
    const at::Tensor ids = cases_.at("english.input_ids")[0];
    for (int64_t i = 1; i < ids.size(0); ++i) text_ += static_cast<char>(ids[i].item<int64_t>() - 4);
    write_content(folder_ / "text.txt", text_);
  }

  std::string file(const std::string& name) const { return (folder_ / name).string(); }

  ToolResult patch(const std::string& arguments, const std::string& input = "") const {
    const ToolResult result = run("blt_patch", arguments, input);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return result;
  }

  std::vector<json> rows(const std::string& arguments, const std::string& input = "") const {
    std::istringstream lines(patch(arguments + " --json", input).out);
    std::vector<json> result;
    for (std::string line; std::getline(lines, line);) result.push_back(json::parse(line));
    return result;
  }

  void expect_error(const std::string& arguments, const std::string& said, int exit_code) const {
    const ToolResult result = run("blt_patch", arguments);
    EXPECT_EQ(result.exit_code, exit_code) << arguments << "\n" << result.err;
    EXPECT_EQ(result.out, "") << arguments;
    EXPECT_NE(result.err.find(said), std::string::npos) << "'" << said << "' is not in: " << result.err;
  }

  std::map<std::string, at::Tensor> cases_;
  std::string text_;  // the first row of a_base "english"
};

TEST_F(BltPatch, FindsThePatchesAndEntropiesOfTheReference) {
  const at::Tensor ids = cases_.at("english.hf.patch_ids")[0], entropies = cases_.at("english.entropies")[0];
  std::string text;
  int64_t patch = 0;
  for (const json& row : rows(file("model") + " " + file("text.txt"))) {
    ++patch;
    EXPECT_EQ(row["offset"], text.size());
    for (size_t i = 0; i < row["length"].get<size_t>(); ++i) {
      const auto at = static_cast<int64_t>(text.size() + i);
      EXPECT_EQ(ids[at + 1].item<int64_t>(), patch) << at;
      EXPECT_NEAR(row["entropies"][i].get<double>(), entropies[at].item<double>(), 2e-4);
    }
    text += row["text"].get<std::string>();
  }
  EXPECT_EQ(text, text_);
}

TEST_F(BltPatch, CutsByRulesThatNeedNoModel) {
  write_content(folder_ / "words.txt", "one two\nthree");
  std::vector<std::string> patches;
  for (const json& row : rows("--mode space " + file("words.txt"))) {
    patches.push_back(row["text"]);
    EXPECT_TRUE(row["entropies"].is_null());
  }
  EXPECT_EQ(patches, (std::vector<std::string>{"one ", "two\n", "three"}));
  EXPECT_EQ(rows("--mode byte " + file("words.txt")).size(), 13u);
  EXPECT_EQ(rows("--mode static --patch-bytes 5 " + file("words.txt")).size(), 3u);
  EXPECT_EQ(rows("--mode space --max-patch-length 2 " + file("words.txt"))[1]["text"], "e ");
  EXPECT_EQ(rows("--mode byte --max-bytes 4 -", "standard input").size(), 4u);
}

TEST_F(BltPatch, ShowsAnyBytesInATerminal) {
  write_content(folder_ / "bytes.txt", "caf\xc3\xa9\n\xff\x1b[31m");
  const std::string plain = patch("--mode static --patch-bytes 6 " + file("bytes.txt")).out;
  // The BOS is one of the first six.
  EXPECT_EQ(plain.substr(0, plain.find("12 bytes")), "café|\\n\n\\xff\\x1b[31|m|\n") << plain;
  write_content(folder_ / "lines.txt", "ab\nc");
  EXPECT_EQ(patch("--mode static --patch-bytes 4 " + file("lines.txt")).out,
            "ab\\n|\nc|\n4 bytes, 2 patches, 2.000 bytes each\n");
  write_content(folder_ / "marks.txt", "a|b\\n");
  EXPECT_EQ(patch("--mode static --patch-bytes 4 " + file("marks.txt")).out,
            "a\\|b|\\\\n|\n5 bytes, 2 patches, 2.500 bytes each\n");
  const std::string colored = patch("--color always --mode byte " + file("bytes.txt")).out;
  EXPECT_NE(colored.find("\x1b[38;5;16;48;5;153m"), std::string::npos);
  EXPECT_NE(colored.find("\\xc3"), std::string::npos) << "half of a character is shown as a byte";
  EXPECT_EQ(colored.find("\x1b[31m"), std::string::npos) << "what is in the text does not reach the terminal";
}

TEST_F(BltPatch, DrawsAPicture) {
  patch(file("model") + " " + file("text.txt") + " --svg " + file("patches.svg"));
  const std::string svg = content_of(folder_ / "patches.svg");
  EXPECT_EQ(svg.rfind("<svg ", 0), 0u);
  EXPECT_NE(svg.find("<polyline"), std::string::npos);
  EXPECT_NE(svg.find("threshold "), std::string::npos);
  EXPECT_EQ(svg.substr(svg.size() - 7), "</svg>\n");
  write_content(folder_ / "long.txt", std::string(30000, 'a'));
  expect_error("--mode byte --svg " + file("long.svg") + " " + file("long.txt"), "--max-bytes", 1);
  EXPECT_FALSE(std::filesystem::exists(folder_ / "long.svg"));
}

TEST_F(BltPatch, RefusesBadInput) {
  expect_error("", "MODEL_DIR", 2);
  expect_error(file("text.txt"), "MODEL_DIR", 2);
  expect_error("--mode space " + file("model") + " " + file("text.txt"), "one FILE", 2);
  expect_error("--mode words " + file("text.txt"), "mode", 2);
  expect_error("--mode space --patch-bytes 3 " + file("text.txt"),
               "blt_patch: --patch-bytes: belongs to --mode static", 2);
  expect_error("--mode space " + file("none.txt"), "none.txt", 1);
  expect_error(file("nowhere") + " " + file("text.txt"), "nowhere", 1);
  write_content(folder_ / "empty.txt", "");
  expect_error("--mode space " + file("empty.txt"), "empty.txt", 1);
}

}  // namespace
}  // namespace blt
