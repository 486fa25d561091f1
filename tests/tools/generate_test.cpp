// blt_generate as a user runs it: what it prints, and with bad input.
#include <torch/torch.h>

#include <algorithm>
#include <string>
#include <vector>

#include "blt/generate/generator.h"
#include "blt/io/model_dir.h"
#include "tools/run_tool.h"

namespace blt {
namespace {

class BltGenerate : public ToolTest {
 protected:
  BltGenerate() {
    std::filesystem::copy(BLT_GOLDEN_DIR "/a_base", folder_ / "model");
    std::filesystem::remove(folder_ / "model" / "cases.safetensors");
  }
  std::string file(const std::string& name) const { return (folder_ / name).string(); }
  std::string model() const { return file("model"); }

  std::string output_of(const std::string& arguments, const std::string& input = "") const {
    const ToolResult result = run("blt_generate", arguments, input);
    EXPECT_EQ(result.exit_code, 0) << arguments << "\n" << result.err;
    EXPECT_EQ(result.err, "") << arguments;
    return result.out;
  }

  // One clear error, and nothing on standard output.
  void expect_error(const std::string& arguments, const std::string& said, int exit_code) const {
    const ToolResult result = run("blt_generate", arguments);
    EXPECT_EQ(result.exit_code, exit_code) << arguments << "\n" << result.err;
    EXPECT_EQ(result.out, "") << arguments;
    EXPECT_NE(result.err.find(said), std::string::npos) << "'" << said << "' is not in: " << result.err;
    EXPECT_LE(std::count(result.err.begin(), result.err.end(), '\n'), 2) << result.err;
  }
  void expect_wrong_usage(const std::string& arguments, const std::string& said) const {
    expect_error(model() + " " + arguments, said, 2);
  }
  void expect_failure(const std::string& arguments, const std::string& said) const {
    expect_error(arguments, said, 1);
  }
};

// What the library generates from the same model.
std::string generated(const std::filesystem::path& folder, const std::string& prompt,
                      GenerateOptions options) {
  LoadedModel loaded = load_model(folder);
  loaded.blt->eval();
  loaded.entropy_model->eval();
  freeze(*loaded.blt);
  freeze(*loaded.entropy_model);
  std::string bytes;
  generate(Generator(loaded.blt, loaded.entropy_model, make_patcher(loaded.config.patching)), ids_of(prompt),
           options, [&](uint8_t byte) { bytes += static_cast<char>(byte); });
  return bytes;
}

TEST_F(BltGenerate, PrintsRawBytesAndNothingElse) {
  GenerateOptions options{.max_bytes = 60, .ignore_eos = true};
  options.sampler.greedy = true;
  for (const std::string prompt : {"", "T", "The Byte Latent Transformer", "\xff\xfe\x80 no UTF-8 \xc3"}) {
    write_content(file("prompt"), prompt);
    const std::string expected = generated(model(), prompt, options);
    EXPECT_EQ(
        output_of(model() + " --prompt-file " + file("prompt") + " --max-bytes 60 --greedy --ignore-eos"),
        expected);
    EXPECT_EQ(output_of(model() + " --prompt-file - --max-bytes 60 --greedy --ignore-eos", prompt), expected);
    EXPECT_EQ(output_of(model() + " --prompt '" + prompt + "' --max-bytes 60 --greedy --ignore-eos"),
              expected);
  }
}

TEST_F(BltGenerate, TakesPromptsThatLookLikeSomethingElse) {
  GenerateOptions options{.max_bytes = 8, .ignore_eos = true};
  options.sampler.greedy = true;
  for (const std::string prompt : {"[1, 2]", "\"quoted\"", " x ", "--greedy", "null"})
    EXPECT_EQ(output_of(model() + " '--prompt=" + prompt + "' --max-bytes 8 --greedy --ignore-eos"),
              generated(model(), prompt, options))
        << prompt;
}

TEST_F(BltGenerate, ASeedChoosesAlike) {
  const std::string some =
      model() +
      " --prompt Hello --max-bytes 40 --temperature 0.9 --top-k 50 --top-p 0.95 --min-p 0.01 --ignore-eos";
  const std::string first = output_of(some + " --seed 5");
  EXPECT_EQ(output_of(some + " --seed 5"), first);
  EXPECT_NE(output_of(some + " --seed 6"), first);
  EXPECT_LE(first.size(), 40u);
}

TEST_F(BltGenerate, AnEntropyModelAloneGenerates) {
  EntropyModelConfig config;
  config.dim = 16;
  config.layers = 2;
  config.heads = 2;
  config.ffn_dim = 24;
  torch::manual_seed(3);
  EntropyModel alone(config);
  save_entropy_model(folder_ / "entropy", alone);
  const std::string arguments = file("entropy") + " --prompt abc --max-bytes 30 --ignore-eos --seed 1";
  const std::string bytes = output_of(arguments);
  EXPECT_GT(bytes.size(), 20u);
  EXPECT_EQ(output_of(arguments), bytes);
}

// Not yet run where there is a device.
TEST_F(BltGenerate, PrintsTheSameBytesOnADevice) {
  const std::string some = model() + " --prompt 'The Byte Latent' --max-bytes 40 --greedy --ignore-eos";
  if (run("blt_generate", some + " --device cuda").exit_code != 0)
    return expect_failure(some + " --device cuda", "compute on the cpu");
  EXPECT_EQ(output_of(some + " --device cuda"), output_of(some));
}

TEST_F(BltGenerate, SaysWhatIsWrongWithTheCommandLine) {
  expect_wrong_usage("--prompt a", "--max-bytes is missing");
  expect_wrong_usage("--prompt a --max-bytes 0", "max-bytes");
  expect_wrong_usage("--prompt a --max-bytes -3", "max-bytes");
  expect_wrong_usage("--prompt a --max-bytes many", "max-bytes");
  expect_wrong_usage("--max-bytes 3", "--prompt or --prompt-file is missing");
  expect_wrong_usage("--prompt a --prompt-file b --max-bytes 3",
                     "--prompt-file: cannot be given together with --prompt");
  expect_wrong_usage("--prompt a --max-bytes 3 --greedy --temperature 0.5",
                     "--temperature: has no effect with greedy");
  expect_wrong_usage("--prompt a --max-bytes 3 --temperature 0", "temperature");
  expect_wrong_usage("--prompt a --max-bytes 3 --top-k 0", "--top-k must be");
  expect_wrong_usage("--prompt a --max-bytes 3 --top-p 1.5", "top-p");
  expect_wrong_usage("--prompt a --max-bytes 3 --seed -1", "seed");
  expect_wrong_usage("--prompt a --max-bytes 3 --device gpu", "--device: must be cpu, cuda");
  expect_error("--prompt a --max-bytes 3", "MODEL_DIR is missing", 2);
}

TEST_F(BltGenerate, SaysWhatIsWrongWithTheModelOrThePrompt) {
  expect_failure(file("nowhere") + " --prompt a --max-bytes 3", "nowhere");
  expect_failure(model() + " --prompt-file " + file("nothing.txt") + " --max-bytes 3", "nothing.txt");
  std::filesystem::resize_file(folder_ / "model" / "model.safetensors", 5000);
  expect_failure(model() + " --prompt a --max-bytes 3", "model.safetensors");
}

TEST_F(BltGenerate, RefusesAPatcherThatLooksAhead) {
  LoadedModel loaded = load_model(folder_ / "model");
  loaded.config.patching.rule = TopKPatching{};
  save_model(folder_ / "top_k", loaded);
  expect_failure(file("top_k") + " --prompt a --max-bytes 3", "top_k patching looks ahead");
}

}  // namespace
}  // namespace blt
