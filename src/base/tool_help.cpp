#include "base/tool_help.h"

#include <unistd.h>

#include <algorithm>
#include <string_view>

#include "base/config_text.h"
#include "blt/base/terminal.h"

namespace blt::config_detail {

using Kind = ConfigType::Kind;

namespace {

constexpr size_t kPageWidth = 100, kLongestLeft = 30;
constexpr size_t kNarrow = 70;  // below, there is no room for two columns

size_t page_width() { return std::min(kPageWidth, terminal_columns(STDOUT_FILENO).value_or(kPageWidth)); }

// Lines of at most `page_width` columns that begin with `margin`, wrapped at words; the first one goes on after `line`.
std::string wrapped(std::string_view text, std::string line, const std::string& margin) {
  const size_t width = page_width();
  std::string result;
  bool has_words = false;
  while (!text.empty()) {
    const std::string_view word = text.substr(0, text.find(' '));
    text.remove_prefix(std::min(text.size(), word.size() + 1));
    if (has_words && line.size() + 1 + word.size() > width) {
      result += line + "\n";
      line = margin;
      has_words = false;
    }
    line += (has_words ? " " : "") + std::string(word);
    has_words = true;
  }
  line.erase(line.find_last_not_of(' ') + 1);
  return result + line + "\n";
}

struct Row {
  std::string left, right;
};

// Rows in two columns, or one below the other in a narrow window.
std::string columns(const std::vector<Row>& rows) {
  const bool narrow = page_width() < kNarrow;
  size_t width = narrow ? 2 : 0;
  for (const Row& row : rows)
    if (!narrow && row.left.size() <= kLongestLeft) width = std::max(width, row.left.size());
  const std::string margin(width + 4, ' ');
  std::string text;
  for (const Row& row : rows) {
    std::string line = "  " + row.left;
    if (row.left.size() > width) {
      text += line + "\n";
      line.clear();
    }
    line.resize(margin.size(), ' ');
    text += wrapped(row.right, line, margin);
  }
  return text;
}

std::string placeholder(const ConfigType& type) {
  switch (type.kind) {
    case Kind::kBool:
      return "";
    case Kind::kInteger:
      return "N";
    case Kind::kNumber:
      return "X";
    case Kind::kText:
      return "TEXT";
    case Kind::kPath:
      return "PATH";
    case Kind::kList:
      return placeholder(*type.inner[0]) + "...";
    case Kind::kOptional:
      return placeholder(*type.inner[0]);
    default:
      break;
  }
  std::string names = type_text(type);  // "max | mean | min"
  std::erase(names, ' ');
  return names;
}

// The sentence, then what goes without saying in it: "Bytes of a sequence. (at least 1; default 4096)"
std::string explain(const std::string& help, const std::string& bounds, const std::string& standing,
                    bool required) {
  std::string notes = required ? "required" : "";
  const auto note = [&](const std::string& text) { notes += (notes.empty() ? "" : "; ") + text; };
  if (!bounds.empty()) note(bounds);
  const bool is_nothing = standing.empty() || standing == "null" || standing == "[]" || standing == "\"\"";
  if (!required && !is_nothing) note("default " + standing);
  return notes.empty() ? help : help + " (" + notes + ")";
}

}  // namespace

std::string help_text(const ToolSpec& spec, const std::vector<ToolOption>& options) {
  std::string usage = "Usage: " + std::string(spec.name);
  std::vector<Row> positional, named;
  for (const ToolOption& option : options) {
    const ConfigType& type = *option.field.value.type;
    const bool is_flag = type.kind == Kind::kBool;
    const bool is_on = is_flag && *static_cast<const bool*>(option.field.value.address);
    const std::string value = placeholder(type);
    std::string standing = is_flag ? "" : flow_text(option.field.value);
    const std::string help =
        explain(std::string(option.field.help), bounds_text(option.field.rule), standing, option.is_required);
    if (option.is_positional) {
      const bool repeats =
          type.kind == Kind::kList && option.flag.find(' ') == option.flag.npos;  // else it says so itself
      const std::string shown = option.flag + (repeats ? " ..." : "");
      usage += option.is_required ? " " + shown : " [" + shown + "]";
      positional.push_back({option.flag, help});
    } else {
      named.push_back(
          {(is_on ? "--no-" + option.flag.substr(2) : option.flag) + (value.empty() ? "" : " " + value),
           is_on ? "Switch off: " + help : help});
      if (option.is_required) usage += " " + named.back().left;
    }
  }
  if (spec.print_config) {
    named.push_back({"--print-config", "Print the whole config that a run would use, and stop."});
    named.push_back({"--help-config", "Print the keys of the config, and stop."});
  }
  named.push_back({"-h, --help", "Print this, and stop."});
  named.push_back({"--version", "Print the version, and stop."});
  std::string text =
      wrapped(spec.description, "", "") + "\n" + wrapped(usage + " [options]", "", "  ") + "\n";
  if (!positional.empty()) text += columns(positional) + "\n";
  return text + "Options:\n" + columns(named) + "\n" +
         wrapped(
             "Results go to standard output, messages to standard error. Exit codes: 0 done, 1 failed, 2 "
             "wrong usage, 3 saved and stopped after a signal, 130 ended by a second Ctrl-C without saving. "
             "The "
             "environment's BLT_LOG chooses the messages: debug, info, warning, error or off.",
             "", "");
}

std::string config_help_text(const std::vector<FieldDoc>& fields) {
  std::vector<Row> rows;
  for (const FieldDoc& field : fields)
    rows.push_back({field.path,
                    explain("[" + field.type + "] " + field.help, field.bounds, field.default_value, false)});
  return columns(rows);
}

}  // namespace blt::config_detail
