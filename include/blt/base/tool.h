// The frame of every command line tool: options, help, errors, exit codes.
//
//   struct Options {
//     std::filesystem::path model;
//     std::vector<std::filesystem::path> data;
//     int64_t sequence_bytes = 4096;
//     bool json = false;
//     static void fields(auto& self, auto&& field) {
//       field("model", self.model, "A model directory.");
//       field("data", self.data, "Text files, JSON Lines, folders or globs; - is standard input.");
//       field("sequence_bytes", self.sequence_bytes, "Bytes of a sequence.", at_least(1));
//       field("json", self.json, "Print one JSON object.");
//     }
//     static constexpr blt::Positional kPositional[] = {{"model", "MODEL_DIR"}};   // optional
//     static constexpr std::string_view kRequired[] = {"data"};  // optional; without positionals
//   };
//   int main(int argc, char** argv) {
//     return blt::tool<Options>("blt_eval", "Measures bits per byte.", argc, argv,
//                               [](const Options& options) { … });
//   }
#pragma once

#include <filesystem>
#include <functional>
#include <iterator>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "blt/base/config.h"
#include "blt/base/config_io.h"
#include "blt/base/config_type.h"

namespace blt {

enum ExitCode : int {
  kDone = 0,
  kFailed = 1,      // an error; one clear message is on standard error
  kWrongUsage = 2,  // of the command line
  kStopped = 3,     // after a signal, with everything saved
  kDoesNotFit = 4,  // a plan that was asked for needs more memory than there is (blt_train --dry-run)
};

// A field that is given without its name, in this order, and how the help shows it. One that is neither
// optional nor a list must be given; a list takes what is left.
struct Positional {
  std::string_view field;
  std::string_view shown;
};

// Options of a tool that is told what to do by a config file: `CONFIG.yaml [section.key=value ...]`,
// --print-config, --help-config. Derive from it to add more; a `static std::string config_comment(const C&)` is
// printed below the config, as YAML comments.
template <Section C>
struct ConfigOptions {
  using Config = C;
  std::filesystem::path config;
  std::vector<std::string> overrides;

  static void fields(auto& self, auto&& field) {
    field("config", self.config, "The run, in YAML; --help-config lists its keys.");
    field("overrides", self.overrides, "Settings that replace those of the file.");
  }
  static constexpr Positional kPositional[] = {{"config", "CONFIG.yaml"}, {"overrides", "section.key=value"}};

  void validate(Errors& errors) const {
    for (const std::string& text : overrides)
      if (text.find('=') == text.npos) errors.add("", text + " is not of the form section.key=value");
  }
  C load() const { return load_config<C>(config, overrides); }
};

namespace config_detail {
struct ToolSpec {
  std::string_view name = {};
  std::string_view description = {};
  ConfigValue options = {};
  std::vector<Positional> positional = {};
  std::vector<std::string_view> required = {};
  std::function<int()> run = {};
  std::function<std::string()> print_config = {};  // none: the tool has no config file
  std::function<std::vector<FieldDoc>()> describe_config = {};
};
int run_tool(const ToolSpec& spec, int argc, char** argv);
std::string as_comment(std::string_view text);  // "# " before every line
}  // namespace config_detail

// Fills Options from the command line and calls run(options), which returns an exit code or nothing (kDone).
// A field `sequence_bytes` is the option --sequence-bytes, a bool a flag (--no-x where it is true by
// default), a list takes several values, fields of a section inside are --section.field. Options are checked
// like a config; what is wrong with them is kWrongUsage. An exception out of `run` (blt::Error, c10::Error,
// std::exception) is one message on standard error and kFailed.
//
// While it runs, writing to a closed pipe or past a file size limit is an error instead of the end of the
// process. std::cout throws when it cannot write: a reader that has had enough (`| head`) ends the tool with
// kDone, a full disk is kFailed.
template <Section Options, class F>
int tool(std::string_view name, std::string_view description, int argc, char** argv, F run) {
  Options options;
  config_detail::ToolSpec spec{.name = name, .description = description, .options = config_value(options)};
  if constexpr (requires { Options::kPositional; })
    spec.positional.assign(std::begin(Options::kPositional), std::end(Options::kPositional));
  if constexpr (requires { Options::kRequired; })
    spec.required.assign(std::begin(Options::kRequired), std::end(Options::kRequired));
  if constexpr (requires { typename Options::Config; }) {
    spec.print_config = [&options] {
      const auto config = options.load();
      if constexpr (requires { Options::config_comment(config); })
        return to_yaml(config) + config_detail::as_comment(Options::config_comment(config));
      else
        return to_yaml(config);
    };
    spec.describe_config = [] { return blt::describe<typename Options::Config>(); };
  }
  spec.run = [&options, &run]() -> int {
    const Options& given = options;
    if constexpr (std::is_void_v<std::invoke_result_t<F&, const Options&>>) {
      run(given);
      return kDone;
    } else {
      return run(given);
    }
  };
  return config_detail::run_tool(spec, argc, argv);
}

}  // namespace blt
