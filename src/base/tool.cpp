#include "blt/base/tool.h"

#include <c10/util/Exception.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <exception>
#include <ios>
#include <iostream>
#include <map>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "base/config_read.h"
#include "base/config_text.h"
#include "base/tool_help.h"
#include "blt/base/error.h"
#include "blt/base/memory.h"
#include "blt/base/version.h"

namespace blt::config_detail {

using Kind = ConfigType::Kind;

namespace {

// Signals that would end the process where an error can say more, and std::cout that reports its errors; as before, afterwards.
class ErrorsInsteadOfSignals {
 public:
  ErrorsInsteadOfSignals() : exceptions_(std::cout.exceptions()) {
    struct sigaction ignore = {};
    ignore.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &ignore, &pipe_);
    sigaction(SIGXFSZ, &ignore, &size_);
    std::cout.exceptions(std::ios::badbit);
  }
  ~ErrorsInsteadOfSignals() {
    sigaction(SIGPIPE, &pipe_, nullptr);
    sigaction(SIGXFSZ, &size_, nullptr);
    std::cout.clear();
    std::cout.exceptions(exceptions_);
  }

 private:
  std::ios::iostate exceptions_;
  struct sigaction pipe_, size_;
};

void report(std::string_view tool, std::string_view message) {
  std::string text;
  while (!message.empty()) {
    const std::string_view line = message.substr(0, message.find('\n'));
    message.remove_prefix(std::min(message.size(), line.size() + 1));
    text += std::string(tool) + ": " + std::string(line) + "\n";
  }
  std::fputs(text.c_str(), stderr);
}

std::string flag_of(const std::string& path) {
  std::string flag = "--" + path;
  std::replace(flag.begin(), flag.end(), '_', '-');
  return flag;
}

bool is_optional(const ConfigField& field) {
  return field.value.type->kind == Kind::kOptional || field.value.type->kind == Kind::kList;
}

void collect(const ToolSpec& spec, const ConfigValue& section, const std::string& path,
             std::vector<ToolOption>& out) {
  for (const ConfigField& field : section.type->fields(section.address)) {
    const std::string here = join_path(path, field.name);
    if (field.value.type->kind == Kind::kSection) {
      collect(spec, field.value, here, out);
      continue;
    }
    const auto it = std::find_if(spec.positional.begin(), spec.positional.end(),
                                 [&](const Positional& positional) { return positional.field == here; });
    const bool is_listed = std::find(spec.required.begin(), spec.required.end(), here) != spec.required.end();
    if (it == spec.positional.end())
      out.push_back({field, here, flag_of(here), false, is_listed});
    else
      out.push_back({field, here, std::string(it->shown), true, is_listed || !is_optional(field)});
  }
}

// The positionals in their order, then the others in that of the fields.
std::vector<ToolOption> options_of(const ToolSpec& spec) {
  std::vector<ToolOption> options;
  collect(spec, spec.options, "", options);
  const auto place = [&](const ToolOption& option) {
    const auto is_it = [&](const Positional& positional) { return positional.shown == option.flag; };
    return std::find_if(spec.positional.begin(), spec.positional.end(), is_it) - spec.positional.begin();
  };
  std::stable_sort(options.begin(), options.end(),
                   [&](const ToolOption& a, const ToolOption& b) { return place(a) < place(b); });
  return options;
}

// The command line, cut into options and values by CLI11; types and bounds are the config reader's.
class CommandLine {
 public:
  explicit CommandLine(const ToolSpec& spec) : spec_(spec), options_(options_of(spec)) {
    app_.set_help_flag();
    app_.allow_extras();
    for (const ToolOption& option : options_) parsed_.push_back(declare(option));
    help_ = flag("-h,--help");
    version_ = flag("--version");
    if (spec.print_config) {
      print_config_ = flag("--print-config");
      help_config_ = flag("--help-config");
    }
  }

  void parse(int argc, char** argv) {
    try {
      app_.parse(argc, argv);
    } catch (const CLI::RequiredError&) {  // reported below, with the name that the help shows
    } catch (const CLI::ParseError& e) {
      if (!wants(help_)) throw Error(e.what());
    }
  }

  // Whether there was something to print instead of work to do.
  bool print_manual() const {
    if (wants(help_)) {
      std::cout << help_text(spec_, options_);
    } else if (wants(version_)) {
      std::cout << spec_.name << " " << version() << "\n";
    } else if (wants(help_config_)) {
      std::cout << config_help_text(spec_.describe_config());
    } else {
      return false;
    }
    return true;
  }

  void fill_options() const {
    for (const std::string& extra : app_.remaining()) {
      if (!extra.starts_with("-")) throw Error("unexpected argument " + extra);
      const std::string name = extra.substr(0, extra.find('='));
      throw Error("unknown option " + name + did_you_mean(name, {flags_.begin(), flags_.end()}));
    }
    std::map<std::string, std::string> shown;
    for (const ToolOption& option : options_) shown.emplace(option.path, option.flag);
    ConfigReader reader(spec_.options, "", std::move(shown));
    for (size_t i = 0; i < options_.size(); ++i) {
      const std::vector<std::string>& values = parsed_[i]->results();
      if (!values.empty()) reader.set(options_[i].field, options_[i].path, values);
      if (values.empty() && options_[i].is_required) throw Error(options_[i].flag + " is missing");
    }
    reader.validate();
    reader.throw_problems();
  }

  bool prints_config() const { return wants(print_config_); }

 private:
  static bool wants(const CLI::Option* option) { return option != nullptr && option->count() > 0; }

  CLI::Option* flag(const std::string& names) {
    flags_.push_back(names.substr(names.find("--")));
    return app_.add_flag(names);
  }

  CLI::Option* declare(const ToolOption& option) {
    const ConfigType& type = *option.field.value.type;
    if (option.is_positional) {
      CLI::Option* added = app_.add_option("p" + std::to_string(parsed_.size()));  // never shown
      if (type.kind == Kind::kList) added->expected(option.is_required ? 1 : 0, -1)->allow_extra_args();
      return added->required(option.is_required);
    }
    flags_.push_back(option.flag);
    if (type.kind == Kind::kBool) {
      flags_.push_back("--no-" + option.flag.substr(2));
      return app_.add_flag(option.flag + ",!" + flags_.back());
    }
    CLI::Option* added = app_.add_option(option.flag);
    if (type.kind == Kind::kList) added->expected(1, -1)->allow_extra_args();
    return added;
  }

  const ToolSpec& spec_;
  std::vector<ToolOption> options_;
  CLI::App app_;
  std::vector<CLI::Option*> parsed_;  // of options_
  std::vector<std::string> flags_;    // all of them, to find what was meant
  CLI::Option* help_ = nullptr;
  CLI::Option* version_ = nullptr;
  CLI::Option* print_config_ = nullptr;
  CLI::Option* help_config_ = nullptr;
};

int parse_and_run(const ToolSpec& spec, int argc, char** argv) {
  CommandLine command_line(spec);
  try {
    command_line.parse(argc, argv);
    if (command_line.print_manual()) return kDone;
    command_line.fill_options();
  } catch (const Error& e) {
    report(spec.name, e.what());
    report(spec.name, "see " + std::string(spec.name) + " --help");
    return kWrongUsage;
  }
  if (command_line.prints_config()) {
    std::cout << spec.print_config();
    return kDone;
  }
  return spec.run();
}

// Whoever reads standard output has left.
bool is_output_closed() {
  pollfd output = {STDOUT_FILENO, POLLOUT, 0};
  return poll(&output, 1, 0) > 0 && (output.revents & (POLLERR | POLLHUP)) != 0;
}

int finish_output(std::string_view tool, int code, int error) {
  if (error == 0 && std::cout.good() && std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return code;
  if (error == 0) error = errno;
  if (is_output_closed()) return code;
  report(tool,
         "standard output: cannot write" + (error == 0 ? "" : ": " + std::generic_category().message(error)));
  return kFailed;
}

}  // namespace

std::string as_comment(std::string_view text) {
  std::string result;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    result += "# " + std::string(line) + "\n";
  }
  return result;
}

int run_tool(const ToolSpec& spec, int argc, char** argv) {
  keep_freed_memory();
  const ErrorsInsteadOfSignals guard;
  int code = kFailed;
  try {
    code = parse_and_run(spec, argc, argv);
    errno = 0;
    std::cout.flush();
    return finish_output(spec.name, code, 0);
  } catch (const c10::Error& e) {
    report(spec.name, e.what_without_backtrace());
  } catch (const std::bad_alloc&) {
    report(spec.name, "out of memory");
  } catch (const std::ios_base::failure& e) {
    const int error = errno;
    if (std::cout.bad()) return finish_output(spec.name, kDone, error == 0 ? EIO : error);
    report(spec.name, e.what());
  } catch (const std::exception& e) {
    report(spec.name, e.what());
  } catch (...) {
    report(spec.name, "failed for an unknown reason");
  }
  std::fflush(stdout);
  return kFailed;
}

}  // namespace blt::config_detail
