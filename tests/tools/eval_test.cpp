// blt_eval as a user runs it: against what the references computed, over every form of text, and with bad input.
#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "blt/io/model_dir.h"
#include "model/compare.h"
#include "tools/run_tool.h"

namespace blt {
namespace {

using nlohmann::json;

class BltEval : public ToolTest {
 protected:
  BltEval() {
    std::filesystem::copy(BLT_GOLDEN_DIR "/a_base", folder_ / "model");
    std::filesystem::remove(folder_ / "model" / "cases.safetensors");
    cases_ = read_tensors(BLT_GOLDEN_DIR "/a_base/cases.safetensors");
    ids_ = cases_.at("english.input_ids")[0].to(torch::kLong);
    for (int64_t i = 1; i < ids_.size(0); ++i) text_ += static_cast<char>(ids_[i].item<int64_t>() - 4);
    write_content(folder_ / "text.txt", text_);
  }

  std::string model() const { return (folder_ / "model").string(); }
  std::string file(const std::string& name) const { return (folder_ / name).string(); }

  json evaluate(const std::string& arguments, const std::string& input = "") const {
    const ToolResult result = run("blt_eval", arguments + " --json", input);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return result.exit_code == 0 ? json::parse(result.out) : json();
  }

  // One clear error: exit code 1, nothing on standard output, the text in a message, and no file changed.
  void expect_error(const std::string& arguments, const std::vector<std::string>& said,
                    int exit_code = 1) const {
    write_content(folder_ / "logits.safetensors", "kept");
    write_content(folder_ / "bytes.tsv", "kept");
    const auto before = snapshot(folder_);
    const ToolResult result = run("blt_eval", arguments + " --save-logits " + file("logits.safetensors") +
                                                  " --per-byte " + file("bytes.tsv"));
    EXPECT_EQ(result.exit_code, exit_code) << arguments << "\n" << result.err;
    EXPECT_EQ(result.out, "") << arguments;
    for (const std::string& text : said)
      EXPECT_NE(result.err.find(text), std::string::npos) << "'" << text << "' is not in: " << result.err;
    EXPECT_EQ(result.err.find("terminate called"), std::string::npos) << result.err;
    std::istringstream lines(result.err);  // an error that lists several tensors has a line for each
    for (std::string line; std::getline(lines, line);)
      EXPECT_TRUE(line.starts_with("blt_eval: ")) << result.err;
    EXPECT_EQ(snapshot(folder_), before) << arguments;
  }

  std::map<std::string, at::Tensor> cases_;
  at::Tensor ids_;    // [S]
  std::string text_;  // the first row of a_base "english"
};

TEST_F(BltEval, GivesTheBitsPerByteOfTheReference) {
  const at::Tensor logits = cases_.at("english.hf.logits")[0];
  const int64_t bytes = ids_.size(0) - 1;
  const double nll =
      torch::nn::functional::cross_entropy(logits.slice(0, 0, bytes).to(torch::kDouble), ids_.slice(0, 1))
          .item<double>();
  const json result = evaluate(model() + " --data " + file("text.txt"));
  EXPECT_NEAR(result["bits_per_byte"].get<double>(), nll / std::log(2.0), 1e-5);
  EXPECT_EQ(result["bytes"], bytes);
  const int64_t patches =
      cases_.at("english.hf.patch_ids")[0].max().item<int64_t>();  // the BOS patch not counted
  EXPECT_EQ(result["patches"], patches);
  EXPECT_NEAR(result["mean_patch_bytes"].get<double>(),
              static_cast<double>(bytes) / static_cast<double>(patches), 1e-9);
  EXPECT_GT(result["entropy_model_bits_per_byte"].get<double>(), 0);
  EXPECT_GT(result["seconds"].get<double>(), 0);
}

TEST_F(BltEval, SavesLogitsAndEntropies) {
  evaluate(model() + " --data " + file("text.txt") + " --save-logits " + file("logits.safetensors"));
  const auto saved = read_tensors(file("logits.safetensors"));
  ASSERT_EQ(saved.size(), 2u);
  EXPECT_TRUE(same_values("logits", saved.at("logits"), cases_.at("english.hf.logits")[0]));
  EXPECT_TRUE(same_values("entropies", saved.at("entropies"), cases_.at("english.entropies")[0]));
}

TEST_F(BltEval, WritesATableOfBytes) {
  const json result = evaluate(model() + " --data " + file("text.txt") + " --per-byte " + file("bytes.tsv"));
  std::istringstream table(content_of(file("bytes.tsv")));
  std::string line, text;
  std::getline(table, line);
  EXPECT_EQ(line, "byte\tbits\tentropy\tpatch_start");
  double bits = 0;
  int64_t patches = 0;
  for (size_t i = 0; std::getline(table, line); ++i) {
    std::istringstream row(line);
    int byte = -1, start = -1;
    double bit = -1, entropy = -1;
    row >> byte >> bit >> entropy >> start;
    EXPECT_NEAR(entropy, cases_.at("english.entropies")[0][i].item<double>(), 2e-4);
    const at::Tensor patch_ids = cases_.at("english.hf.patch_ids")[0];
    EXPECT_EQ(start == 1, patch_ids[i + 1].item<int64_t>() != patch_ids[i].item<int64_t>()) << i;
    text += static_cast<char>(byte);
    bits += bit;
    patches += start;
  }
  EXPECT_EQ(text, text_);
  EXPECT_NEAR(bits / static_cast<double>(text_.size()), result["bits_per_byte"].get<double>(), 1e-4);
  EXPECT_EQ(result["patches"], patches);
}

TEST_F(BltEval, ReadsTextInEveryForm) {
  const auto bits = [&](const std::string& data, const std::string& input = "") {
    const json result = evaluate(model() + " --data " + data, input);
    return result.is_object() ? result["bits_per_byte"].get<double>() : -1.0;
  };
  const double expected = bits(file("text.txt"));
  const std::string line = json{{"text", text_}}.dump() + "\n";
  write_content(folder_ / "lines.jsonl", line);
  write_content(folder_ / "other.jsonl", json{{"body", text_}}.dump() + "\n");
  write_content(folder_ / "few" / "a.txt", text_);
  ASSERT_EQ(std::system(("gzip -k " + file("text.txt") + " " + file("lines.jsonl")).c_str()), 0);
  EXPECT_EQ(bits(file("lines.jsonl")), expected);
  EXPECT_EQ(bits(file("text.txt.gz")), expected);
  EXPECT_EQ(bits(file("lines.jsonl.gz")), expected);
  EXPECT_EQ(bits(file("few")), expected);
  EXPECT_EQ(bits("'" + file("few") + "/*.txt'"), expected);
  EXPECT_EQ(bits("-", text_), expected);
  EXPECT_EQ(bits("- --format jsonl", line), expected);
  EXPECT_EQ(bits(file("other.jsonl") + " --text-field body"), expected);
  if (std::system("command -v zstd > /dev/null") == 0) {
    ASSERT_EQ(std::system(("zstd -q -k " + file("text.txt") + " " + file("lines.jsonl")).c_str()), 0);
    EXPECT_EQ(bits(file("text.txt.zst")), expected);
    EXPECT_EQ(bits(file("lines.jsonl.zst")), expected);
  }
  const json twice = evaluate(model() + " --data " + file("text.txt") + " " + file("lines.jsonl"));
  EXPECT_EQ(twice["documents"], 2);
  EXPECT_EQ(twice["bytes"], 2 * text_.size());
  EXPECT_NEAR(twice["bits_per_byte"].get<double>(), expected, 1e-6);
}

TEST_F(BltEval, CutsDocumentsWithAndWithoutOverlap) {
  const json whole = evaluate(model() + " --data " + file("text.txt"));
  const json cut = evaluate(model() + " --data " + file("text.txt") + " --sequence-bytes 20");
  EXPECT_EQ(cut["sequences"], (text_.size() + 19) / 20);
  EXPECT_EQ(cut["bytes"], text_.size());
  EXPECT_GT(std::abs(cut["bits_per_byte"].get<double>() - whole["bits_per_byte"].get<double>()), 1e-4);
  const json overlapping =
      evaluate(model() + " --data " + file("text.txt") + " --sequence-bytes 500 --stride 10");
  EXPECT_EQ(overlapping["bytes"], text_.size());
  EXPECT_NEAR(overlapping["bits_per_byte"].get<double>(), whole["bits_per_byte"].get<double>(), 1e-5);
  EXPECT_EQ(overlapping["patches"], whole["patches"]);
}

TEST_F(BltEval, TellsPeopleToo) {
  const ToolResult result = run("blt_eval", model() + " --data " + file("text.txt") + " --sequence-bytes 50");
  EXPECT_EQ(result.exit_code, 0) << result.err;
  for (const char* said :
       {"bits per byte ", "entropy model ", "patches ", "sequences        3 of up to 50 bytes\n"})
    EXPECT_NE(result.out.find(said), std::string::npos) << result.out;
  std::istringstream lines(result.out);
  for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 40u) << line;
}

TEST_F(BltEval, MeasuresAnEntropyModelAlone) {
  save_entropy_model(folder_ / "entropy", load_model(model()).entropy_model);
  const json whole = evaluate(model() + " --data " + file("text.txt"));
  const json alone =
      evaluate(file("entropy") + " --data " + file("text.txt") + " --save-logits " + file("l.safetensors"));
  EXPECT_NEAR(alone["bits_per_byte"].get<double>(), whole["entropy_model_bits_per_byte"].get<double>(), 1e-9);
  EXPECT_TRUE(alone["patches"].is_null());
  EXPECT_TRUE(same_values("entropies", read_tensors(file("l.safetensors")).at("entropies"),
                          cases_.at("english.entropies")[0]));
}

TEST_F(BltEval, RefusesMissingAndEmptyData) {
  expect_error(model() + " --data " + file("none.txt"), {"none.txt"});
  write_content(folder_ / "empty.txt", "");
  expect_error(model() + " --data " + file("empty.txt"), {"empty.txt"});
  std::filesystem::create_directory(folder_ / "nothing");
  expect_error(model() + " --data " + file("nothing"), {"nothing"});
  expect_error(model() + " --data '" + file("*.none") + "'", {"*.none"});
}

TEST_F(BltEval, NamesTheLineOfInvalidJson) {
  write_content(folder_ / "lines.jsonl", "{\"text\": \"one\"}\n{\"text\": \"two\"}\n{\"text\": \"three\"\n");
  expect_error(model() + " --data " + file("lines.jsonl"), {"lines.jsonl:3"});
  write_content(folder_ / "lines.jsonl", "{\"text\": \"one\"}\n{\"txet\": \"two\"}\n");
  expect_error(model() + " --data " + file("lines.jsonl"), {"lines.jsonl:2"});
}

TEST_F(BltEval, RefusesDamagedWeights) {
  const auto path = folder_ / "model" / "model.safetensors";
  const std::string whole = content_of(path);
  uint64_t header = 0;
  for (int i = 7; i >= 0; --i) header = header << 8 | static_cast<unsigned char>(whole[i]);
  for (const size_t size : {size_t{0}, size_t{3}, size_t{8}, size_t{100}, static_cast<size_t>(header) + 7,
                            static_cast<size_t>(header) + 8, whole.size() / 2, whole.size() - 1}) {
    write_content(path, whole.substr(0, size));
    expect_error(model() + " --data " + file("text.txt"), {"model.safetensors"});
  }
  json tensors = json::parse(whole.substr(8, header));
  const auto write_header = [&](const json& changed) {
    std::string text = changed.dump();
    std::string bytes(8, '\0');
    for (int i = 0; i < 8; ++i) bytes[i] = static_cast<char>(text.size() >> (8 * i) & 255);
    write_content(path, bytes + text + whole.substr(8 + header));
  };
  const std::string name = "model.local_decoder.norm.weight";
  json changed = tensors;
  changed[name]["data_offsets"] = {whole.size() * 2, whole.size() * 2 + 128};
  write_header(changed);
  expect_error(model() + " --data " + file("text.txt"), {"model.safetensors"});
  changed = tensors;
  changed.erase(name);  // its bytes stay
  write_header(changed);
  expect_error(model() + " --data " + file("text.txt"), {"model.safetensors", "belong to no tensor"});
  changed = tensors;
  changed[name]["shape"] = {1, 32};
  write_header(changed);
  expect_error(model() + " --data " + file("text.txt"), {name});
  write_content(path, whole);
  EXPECT_TRUE(evaluate(model() + " --data " + file("text.txt")).is_object());  // it was the damage
}

TEST_F(BltEval, RefusesABrokenConfig) {
  const auto path = folder_ / "model" / "config.json";
  const std::string whole = content_of(path);
  write_content(path, whole.substr(0, whole.size() / 2));
  expect_error(model() + " --data " + file("text.txt"), {"config.json"});
  json config = json::parse(whole);
  config["encoder_config"]["hidden_size"] = "wide";
  write_content(path, config.dump());
  expect_error(model() + " --data " + file("text.txt"), {"config.json"});
  config = json::parse(whole);
  config["encoder_config"]["hidden_act"] = "gelu";
  write_content(path, config.dump());
  expect_error(model() + " --data " + file("text.txt"), {"config.json", "hidden_act"});
  std::filesystem::remove(path);
  expect_error(model() + " --data " + file("text.txt"), {"config.json"});
  expect_error(file("nowhere") + " --data " + file("text.txt"), {"nowhere"});
}

TEST_F(BltEval, SavesTheLogitsOfOneSequenceOnly) {
  expect_error(model() + " --data " + file("text.txt") + " --sequence-bytes 20", {"--save-logits"});
}

TEST_F(BltEval, RefusesCudaWithoutKernelsOrDevice) {
  if (torch::cuda::is_available()) GTEST_SKIP() << "there is a CUDA device here";
  expect_error(model() + " --data " + file("text.txt") + " --device cuda", {"--device cuda"});
}

TEST_F(BltEval, TellsWrongUsage) {
  expect_error("", {"MODEL_DIR"}, 2);
  expect_error(model(), {"--data"}, 2);
  expect_error(model() + " --data " + file("text.txt") + " --stride 30 --sequence-bytes 20",
               {"blt_eval: --stride: 30 bytes"}, 2);
  // One file for both would hold what was written last.
  EXPECT_EQ(run("blt_eval", model() + " --data " + file("text.txt") + " --save-logits " + file("x/../both") +
                                " --per-byte " + file("both"))
                .exit_code,
            2);
  EXPECT_FALSE(std::filesystem::exists(folder_ / "both"));
  expect_error(model() + " --data " + file("text.txt") + " --sequence-bytes 0", {"sequence-bytes"}, 2);
  expect_error(model() + " --data " + file("text.txt") + " --device gpu", {"device"}, 2);
  expect_error(model() + " --data " + file("text.txt") + " --strid 3", {"strid"}, 2);
  EXPECT_EQ(run("blt_eval", "--help").exit_code, 0);
  EXPECT_EQ(run("blt_eval", "--version").exit_code, 0);
}

}  // namespace
}  // namespace blt
