#include "base/config_text.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <numeric>

namespace blt::config_detail {

using Kind = ConfigType::Kind;

namespace {

std::string bound_text(double bound) {  // bounds are most often whole numbers: without a point
  std::array<char, 40> buffer;
  const bool whole = bound == std::floor(bound) && std::abs(bound) < 1e15;
  const auto format = whole ? std::chars_format::fixed : std::chars_format::general;
  return {buffer.data(), std::to_chars(buffer.data(), buffer.data() + buffer.size(), bound, format).ptr};
}

// Whether other YAML readers, too, take it for this text, without quotes.
bool is_plain(std::string_view text) {
  const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; };
  const auto inner = [&](char c) {
    return letter(c) || (c >= '0' && c <= '9') || c == '.' || c == '/' || c == '-';
  };
  if (text.empty() || !(letter(text[0]) || text[0] == '/')) return false;
  if (!std::all_of(text.begin(), text.end(), inner)) return false;
  std::string lower(text);
  for (char& c : lower)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  constexpr std::string_view kWords[] = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"};
  return std::find(std::begin(kWords), std::end(kWords), lower) == std::end(kWords);
}

size_t distance(std::string_view a,
                std::string_view b) {  // of Damerau and Levenshtein: swapped neighbours count once
  std::vector<size_t> before, above(b.size() + 1), row(b.size() + 1);
  std::iota(above.begin(), above.end(), 0);
  for (size_t i = 0; i < a.size(); ++i) {
    row[0] = i + 1;
    for (size_t j = 0; j < b.size(); ++j) {
      row[j + 1] = std::min({above[j + 1] + 1, row[j] + 1, above[j] + (a[i] != b[j])});
      if (i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j])
        row[j + 1] = std::min(row[j + 1], before[j - 1] + 1);
    }
    before = above;
    std::swap(above, row);
  }
  return above[b.size()];
}

}  // namespace

std::string type_text(const ConfigType& type) {
  const auto plural = [](const ConfigType& element) -> std::string {
    switch (element.kind) {
      case Kind::kText:
        return "texts";
      case Kind::kChoice:
      case Kind::kVariant:
      case Kind::kOptional:
      case Kind::kList:
        return "(" + type_text(element) + ")";
      default:
        return type_text(element) + "s";
    }
  };
  const auto alternatives = [&] {
    std::string text;
    for (const std::string_view name : type.names) text += (text.empty() ? "" : " | ") + std::string(name);
    return text;
  };
  switch (type.kind) {
    case Kind::kBool:
      return "true | false";
    case Kind::kInteger:
      return "integer";
    case Kind::kNumber:
      return "number";
    case Kind::kText:
      return "text";
    case Kind::kPath:
      return "path";
    case Kind::kChoice:
      return alternatives();
    case Kind::kSection:
      return "section";
    case Kind::kOptional:
      return type_text(*type.inner[0]) + " | null";
    case Kind::kList:
      return "list of " + plural(*type.inner[0]);
    case Kind::kVariant:
      return "section of kind " + alternatives();
  }
  return {};
}

std::string bounds_text(const Rule& rule) {
  const bool low = std::isfinite(rule.low), high = std::isfinite(rule.high);
  const std::string low_text = low ? (rule.low_excluded ? "above " : "at least ") + bound_text(rule.low) : "";
  if (low && high && !rule.low_excluded)
    return "between " + bound_text(rule.low) + " and " + bound_text(rule.high);
  if (low && high) return low_text + " and at most " + bound_text(rule.high);
  return high ? "at most " + bound_text(rule.high) : low_text;
}

std::string number_text(double value) {
  if (std::isinf(value)) return value < 0 ? "-.inf" : ".inf";
  if (std::isnan(value)) return ".nan";
  std::array<char, 40> buffer;
  const double size = std::abs(value);
  const bool fixed = size == 0 || (size >= 1e-4 && size < 1e16);
  const auto format = fixed ? std::chars_format::fixed : std::chars_format::scientific;
  std::string text(buffer.data(),
                   std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, format).ptr);
  if (fixed && text.find('.') == std::string::npos) text += ".0";
  return text;
}

std::string quoted_text(std::string_view text) {
  constexpr std::string_view kHex = "0123456789abcdef";
  std::string quoted = "\"";
  for (const char c : text) {
    const auto code = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      quoted += {'\\', c};
    } else if (c == '\n') {
      quoted += "\\n";
    } else if (c == '\t') {
      quoted += "\\t";
    } else if (code < 0x20 || code == 0x7f) {
      quoted += {'\\', 'u', '0', '0', kHex[code >> 4], kHex[code & 15]};
    } else {
      quoted += c;
    }
  }
  return quoted + '"';
}

std::string flow_text(const ConfigValue& value) {
  const ConfigType& type = *value.type;
  const auto plain_or_quoted = [](const std::string& text) {
    return is_plain(text) ? text : quoted_text(text);
  };
  switch (type.kind) {
    case Kind::kBool:
      return *static_cast<const bool*>(value.address) ? "true" : "false";
    case Kind::kInteger:
      return std::to_string(*static_cast<const int64_t*>(value.address));
    case Kind::kNumber:
      return number_text(*static_cast<const double*>(value.address));
    case Kind::kText:
      return plain_or_quoted(*static_cast<const std::string*>(value.address));
    case Kind::kPath:
      return plain_or_quoted(static_cast<const std::filesystem::path*>(value.address)->string());
    case Kind::kChoice:
      return std::string(type.names.at(type.chosen(value.address)));
    case Kind::kOptional:
      return type.count(value.address) == 0 ? "null"
                                            : flow_text({type.inner[0], type.element(value.address, 0)});
    case Kind::kList: {
      std::string text;
      for (size_t i = 0; i < type.count(value.address); ++i)
        text += (i == 0 ? "" : ", ") + flow_text({type.inner[0], type.element(value.address, i)});
      return "[" + text + "]";
    }
    case Kind::kSection: {
      std::string text;
      for (const ConfigField& field : type.fields(value.address))
        text += (text.empty() ? "" : ", ") + std::string(field.name) + ": " + flow_text(field.value);
      return "{" + text + "}";
    }
    case Kind::kVariant: {
      const size_t i = type.chosen(value.address);
      const std::string fields = flow_text({type.inner[i], type.element(value.address, 0)});
      return "{kind: " + std::string(type.names[i]) + (fields == "{}" ? "" : ", ") + fields.substr(1);
    }
  }
  return {};
}

std::string join_path(const std::string& path, std::string_view key) {
  if (path.empty() || key.empty()) return path + std::string(key);
  return path + "." + std::string(key);
}

bool is_at_or_below(const std::string& path, const std::string& above) {
  return above.empty() || path == above || (path.starts_with(above) && path[above.size()] == '.');
}

std::string either_text(const std::vector<std::string_view>& names) {
  std::string text;
  for (size_t i = 0; i < names.size(); ++i)
    text += (i == 0 ? "" : i + 1 == names.size() ? " or " : ", ") + std::string(names[i]);
  return text;
}

std::string_view nearest(std::string_view given, const std::vector<std::string_view>& candidates) {
  std::string_view best;
  size_t best_distance = std::max<size_t>(1, std::min(given.size() / 2, size_t{3})) + 1;
  for (const std::string_view candidate : candidates) {
    const size_t d = distance(given, candidate);
    if (d < best_distance) {
      best = candidate;
      best_distance = d;
    }
  }
  return best;
}

std::string did_you_mean(std::string_view given, const std::vector<std::string_view>& known) {
  const std::string_view near = nearest(given, known);
  return near.empty() ? "" : " (did you mean " + std::string(near) + "?)";
}

std::string unknown_key(std::string_view key, const std::vector<std::string_view>& known) {
  std::string hint = did_you_mean(key, known);
  if (hint.empty()) {
    for (const std::string_view name : known)
      hint += (hint.empty() ? " (known keys: " : ", ") + std::string(name);
    hint += hint.empty() ? " (there are none)" : ")";
  }
  return "is not a known key" + hint;
}

}  // namespace blt::config_detail
