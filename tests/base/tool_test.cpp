#include "blt/base/tool.h"

#include <c10/util/Exception.h>
#include <fcntl.h>
#include <unistd.h>

#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/example_config.h"
#include "blt/base/version.h"

namespace blt_test {

namespace {

struct Options {
  std::filesystem::path model;
  std::vector<std::filesystem::path> data;
  int64_t sequence_bytes = 4096;
  bool json = false;
  bool color = true;
  Color shade = Color::kBlue;
  std::optional<double> temperature;
  static void fields(auto& self, auto&& field) {
    field("model", self.model, "A model directory.");
    field("data", self.data, "Text to read.");
    field("sequence_bytes", self.sequence_bytes, "Bytes of a sequence.", at_least(1));
    field("json", self.json, "Print one JSON object.");
    field("color", self.color, "Colours.");
    field("shade", self.shade, "Of the light.");
    field("temperature", self.temperature, "Of the oven.");
  }
  static constexpr blt::Positional kPositional[] = {{"model", "MODEL_DIR"}};
  static constexpr std::string_view kRequired[] = {"data"};
};

struct Result {
  int code;
  std::string out, err;
};

template <class O, class F>
Result run_tool(std::vector<std::string> arguments, const F& body) {
  arguments.insert(arguments.begin(), "blt_test_tool");
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  const int code =
      blt::tool<O>("blt_test_tool", "Tests tools.", static_cast<int>(argv.size()), argv.data(), body);
  std::string out = testing::internal::GetCapturedStdout();
  return {code, std::move(out), testing::internal::GetCapturedStderr()};
}

Result run(const std::vector<std::string>& arguments) {
  return run_tool<Options>(arguments, [](const Options& options) { std::cout << blt::to_yaml(options); });
}

Result run_throwing(const std::function<void()>& body) {
  return run_tool<Options>({"m", "--data", "x"}, [&](const Options&) { body(); });
}

TEST(Tool, FieldsBecomeOptions) {
  const Result result = run({"dir", "--data", "a", "-", "--sequence-bytes", "1_000", "--json", "--no-color",
                             "--shade", "red", "--temperature", "-1.5"});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(result.out,
            "model: dir\ndata: [a, \"-\"]\nsequence_bytes: 1000\njson: true\ncolor: false\nshade: "
            "red\ntemperature: -1.5\n");
  EXPECT_EQ(result.err, "");
}

TEST(Tool, AListLeavesAPositionalThatMustBeGiven) {
  const Result result = run({"--data", "a", "b", "dir"});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(result.out.rfind("model: dir\ndata: [a, b]\n", 0), 0u) << result.out;
}

TEST(Tool, HelpIsMadeFromTheFields) {
  for (const char* flag : {"--help", "-h"}) {
    const Result result = run({flag});
    EXPECT_EQ(result.code, 0);
    EXPECT_EQ(result.out.rfind("Tests tools.\n\nUsage: blt_test_tool MODEL_DIR --data PATH... [options]\n\n"
                               "  MODEL_DIR  A model directory. (required)\n",
                               0),
              0u)
        << result.out;
    for (const char* line : {"  --data PATH...          Text to read. (required)\n",
                             "  --sequence-bytes N      Bytes of a sequence. (at least 1; default 4096)\n",
                             "  --json                  Print one JSON object.\n",
                             "  --no-color              Switch off: Colours.\n",
                             "  --shade red|green|blue  Of the light. (default blue)\n",
                             "  --temperature X         Of the oven.\n", "  --version  "})
      EXPECT_NE(result.out.find(line), std::string::npos) << line << "\n" << result.out;
    EXPECT_EQ(result.out.find("--print-config"), std::string::npos);
  }
}

TEST(Tool, VersionIsOneLine) {
  const Result result = run({"--version"});
  EXPECT_EQ(result.code, 0);
  EXPECT_EQ(result.out, std::string("blt_test_tool ") + blt::version() + "\n");
}

TEST(Tool, WrongUsageIsExitCodeTwoAndSaysWhat) {
  const auto message = [](const std::vector<std::string>& arguments) {
    const Result result = run(arguments);
    EXPECT_EQ(result.code, 2);
    EXPECT_EQ(result.out, "");
    return result.err.substr(0, result.err.rfind("blt_test_tool: see blt_test_tool --help\n"));
  };
  EXPECT_EQ(message({}), "blt_test_tool: MODEL_DIR is missing\n");
  EXPECT_EQ(message({"dir"}), "blt_test_tool: --data is missing\n");
  EXPECT_EQ(message({"dir", "--data", "a", "--jsn"}),
            "blt_test_tool: unknown option --jsn (did you mean --json?)\n");
  EXPECT_EQ(message({"dir", "other", "--data", "a"}), "blt_test_tool: unexpected argument other\n");
  EXPECT_EQ(message({"dir", "--data", "a", "--sequence-bytes", "0", "--shade", "gren"}),
            "blt_test_tool: --sequence-bytes must be at least 1, is 0\n"
            "blt_test_tool: --shade must be red, green or blue, is gren (did you mean green?)\n");
  EXPECT_EQ(message({"dir", "--data", "a", "--sequence-bytes", "many"}),
            "blt_test_tool: --sequence-bytes must be an integer, is many\n");
  EXPECT_NE(message({"dir", "--data"}), "");
}

struct RuledOptions {
  std::vector<std::string> inputs;
  int64_t max_bytes = 1;
  static void fields(auto& self, auto&& field) {
    field("inputs", self.inputs, "Files.");
    field("max_bytes", self.max_bytes, "Bytes.", at_least(1));
  }
  void validate(blt::Errors& errors) const {
    if (max_bytes == 7) errors.add("max_bytes", "is unlucky");
    if (inputs.size() > 1) errors.add("inputs", "are too many");
  }
  static constexpr blt::Positional kPositional[] = {{"inputs", "FILE"}};
};

TEST(Tool, BrokenRulesNameTheOptionAsItIsTyped) {
  const auto message = [](const std::vector<std::string>& arguments) {
    const Result result = run_tool<RuledOptions>(arguments, [](const RuledOptions&) {});
    EXPECT_EQ(result.code, 2);
    return result.err.substr(0, result.err.rfind("blt_test_tool: see blt_test_tool --help\n"));
  };
  EXPECT_EQ(message({"a", "b", "--max-bytes", "7"}),
            "blt_test_tool: --max-bytes: is unlucky\nblt_test_tool: FILE: are too many\n");
  // A value that could not be read is not blamed for what stands there instead.
  EXPECT_EQ(message({"--max-bytes", "0"}), "blt_test_tool: --max-bytes must be at least 1, is 0\n");
}

TEST(Tool, TheBodysExitCodeIsTheTools) {
  const auto stopped = [](const Options&) -> int { return blt::kStopped; };
  EXPECT_EQ(run_tool<Options>({"m", "--data", "x"}, stopped).code, 3);
}

TEST(Tool, ErrorsAreOneMessageAndExitCodeOne) {
  const Result user = run_throwing([] { throw blt::Error("a.txt:3: is broken\na.txt:4: too"); });
  EXPECT_EQ(user.code, 1);
  EXPECT_EQ(user.err, "blt_test_tool: a.txt:3: is broken\nblt_test_tool: a.txt:4: too\n");

  const Result torch = run_throwing([] { TORCH_CHECK(false, "x must be [N, C]"); });
  EXPECT_EQ(torch.code, 1);
  EXPECT_EQ(torch.err, "blt_test_tool: x must be [N, C]\n");

  EXPECT_EQ(run_throwing([] { throw std::runtime_error("odd"); }).err, "blt_test_tool: odd\n");
  EXPECT_EQ(run_throwing([] { throw std::bad_alloc(); }).err, "blt_test_tool: out of memory\n");
  EXPECT_EQ(run_throwing([] { throw 3; }).code, 1);
}

struct RunOptions : blt::ConfigOptions<ExampleConfig> {
  bool dry = false;
  static void fields(auto& self, auto&& field) {
    ConfigOptions::fields(self, field);
    field("dry", self.dry, "Do nothing.");
  }
};

Result run_config(const std::vector<std::string>& arguments) {
  return run_tool<RunOptions>(
      arguments, [](const RunOptions& options) { std::cout << "steps " << options.load().steps << "\n"; });
}

TEST(ToolWithConfig, ReadsFileAndOverrides) {
  const TemporaryFolder folder;
  const std::string file = folder.write("run.yaml", "steps: 3\n").string();
  EXPECT_EQ(run_config({file}).out, "steps 3\n");
  EXPECT_EQ(run_config({file, "rate=1", "--dry", "steps=4"}).out, "steps 4\n");
  const Result print = run_config({file, "steps=4", "--print-config"});
  EXPECT_EQ(print.code, 0);
  EXPECT_EQ(blt::parse_config<ExampleConfig>(print.out, "printed").steps, 4);
}

TEST(ToolWithConfig, ReportsTheConfigsProblems) {
  const TemporaryFolder folder;
  const std::string file = folder.write("run.yaml", "stepz: 3\n").string();
  const Result result = run_config({file, "rate=0"});
  EXPECT_EQ(result.code, 1);
  EXPECT_EQ(result.err, "blt_test_tool: " + file +
                            ":1: stepz is not a known key (did you mean steps?)\n"
                            "blt_test_tool: override rate=0: rate must be above 0, is 0\n");
  EXPECT_EQ(run_config({file, "--print-config"}).code, 1);
  const Result usage = run_config({file, "rate"});
  EXPECT_EQ(usage.code, 2);
  EXPECT_NE(usage.err.find("rate is not of the form section.key=value"), std::string::npos) << usage.err;
}

TEST(ToolWithConfig, HelpShowsTheCommandLineAndTheKeys) {
  const std::string help = run_config({"--help"}).out;
  EXPECT_NE(help.find("Usage: blt_test_tool CONFIG.yaml [section.key=value ...] [options]"),
            std::string::npos)
      << help;
  EXPECT_NE(help.find("--print-config"), std::string::npos);
  const std::string keys = run_config({"--help-config"}).out;
  EXPECT_NE(keys.find("sources[].weight"), std::string::npos) << keys;
  EXPECT_NE(keys.find("[integer] Steps of the rise. (at least 0; default 100)"), std::string::npos) << keys;
}

int write_without_end() {
  std::string name = "blt_test_tool", model = "m", data = "--data", path = "x";
  char* argv[] = {name.data(), model.data(), data.data(), path.data()};
  return blt::tool<Options>("blt_test_tool", "Tests tools.", 4, argv, [](const Options&) {
    for (int i = 0; i < 10000000; ++i) std::cout << "a line of results\n";
    return int{blt::kStopped};  // not reached: the output ends before
  });
}

TEST(ToolDeathTest, AReaderThatHasLeftEndsItInGoodOrder) {
  EXPECT_EXIT(
      {
        int ends[2];
        if (pipe(ends) != 0) _exit(99);
        close(ends[0]);
        dup2(ends[1], STDOUT_FILENO);
        _exit(write_without_end());
      },
      testing::ExitedWithCode(0), "^$");
}

TEST(ToolDeathTest, AFullDiskUnderStandardOutputIsAnError) {
  EXPECT_EXIT(
      {
        dup2(open("/dev/full", O_WRONLY), STDOUT_FILENO);
        _exit(write_without_end());
      },
      testing::ExitedWithCode(1), "blt_test_tool: standard output: cannot write: No space left on device");
}

}  // namespace

}  // namespace blt_test
