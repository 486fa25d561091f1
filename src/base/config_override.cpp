// Settings that are named one by one: overrides and command line options.
#include <charconv>
#include <filesystem>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "base/config_read.h"
#include "base/config_text.h"
#include "blt/base/error.h"

namespace blt::config_detail {

using Kind = ConfigType::Kind;

void ConfigReader::override_with(const std::string& text) {
  constexpr int kAfterAllLines = std::numeric_limits<int>::max() / 2;
  source_ = {.where = "override " + text,
             .order = kAfterAllLines + num_overrides_++,
             .folder = std::filesystem::current_path()};
  const size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0)
    fail(origin(0), "", "is not of the form section.key=value");
  else
    set_below({root_, "", {}}, std::string_view(text).substr(0, equals), text.substr(equals + 1));
}

// Text or a path, or an optional one.
static bool is_text(const ConfigType& type) {
  if (type.kind == Kind::kOptional) return is_text(*type.inner[0]);
  return type.kind == Kind::kText || type.kind == Kind::kPath;
}

void ConfigReader::set(const ConfigField& field, const std::string& path,
                       const std::vector<std::string>& values) {
  source_ = {};
  const ConfigType& type = *field.value.type;
  // A shell has taken its own quotes away already: text is what the user typed, even "null" and "'quoted'".
  const auto set_one = [&](const Target& target, const std::string& text) {
    if (is_text(*target.value.type))
      read_value({.kind = Tree::Kind::kScalar, .line = 0, .text = text}, target);
    else
      set_here(target, text);
  };
  if (type.kind != Kind::kList) {
    set_one({field.value, path, field.rule}, values.back());
    return;
  }
  type.resize(field.value.address, 0);
  type.resize(field.value.address, values.size());
  for (size_t i = 0; i < values.size(); ++i)
    set_one({{type.inner[0], type.element(field.value.address, i)}, path, field.rule}, values[i]);
}

// A section given whole replaces what stood there, as a value does.
void ConfigReader::reset_section(const Target& target) {
  const ConfigType& type = *target.value.type;
  if (type.kind == Kind::kOptional && type.count(target.value.address) == 1)
    return reset_section({{type.inner[0], type.element(target.value.address, 0)}, target.path, {}});
  if (type.kind != Kind::kSection && type.kind != Kind::kVariant) return;
  type.move(target.value.address, type.make().get());
  std::erase_if(origins_, [&](const auto& entry) { return is_at_or_below(entry.first, target.path); });
}

// Text and paths are taken as they are, as nobody expects to quote twice; all else is YAML.
bool ConfigReader::set_here(const Target& target, const std::string& text) {
  const bool is_optional = target.value.type->kind == Kind::kOptional;
  const bool is_quoted = text.starts_with('"') || text.starts_with('\'');
  if (is_text(*target.value.type) && !is_quoted && !(is_optional && text == "null"))
    return read_value({.kind = Tree::Kind::kScalar, .line = 0, .text = text}, target);
  try {
    const auto tree = parse_tree(text, "");
    if (tree->kind == Tree::Kind::kMap || tree->kind == Tree::Kind::kScalar)
      reset_section(target);  // a scalar: its kind
    return read_value(*tree, target);
  } catch (const Error&) {
    return fail(origin(0), target.path, "has a value that is not valid YAML: " + text);
  }
}

bool ConfigReader::set_below(const Target& target, std::string_view rest, const std::string& text) {
  if (rest.empty()) return set_here(target, text);
  const ConfigType& type = *target.value.type;
  void* address = target.value.address;
  const std::string key(rest.substr(0, rest.find('.')));
  const std::string_view after = rest.size() == key.size() ? "" : rest.substr(key.size() + 1);
  const std::string path = join_path(target.path, key);
  switch (type.kind) {
    case Kind::kSection: {
      std::vector<std::string_view> known;
      for (const ConfigField& field : type.fields(address)) {
        if (field.name == key) return set_below({field.value, path, field.rule}, after, text);
        known.push_back(field.name);
      }
      return fail(origin(0), path, unknown_key(key, known));
    }
    case Kind::kVariant:
      if (key == "kind" && after.empty())
        return choose_kind({.kind = Tree::Kind::kScalar, .line = 0, .text = text}, target);
      return set_below({{type.inner[type.chosen(address)], type.element(address, 0)}, target.path, {}}, rest,
                       text);
    case Kind::kOptional: {
      const bool was_absent = type.count(address) == 0;
      type.resize(address, 1);
      const bool good =
          set_below({{type.inner[0], type.element(address, 0)}, target.path, target.rule}, rest, text);
      if (!good && was_absent) type.resize(address, 0);
      return good;
    }
    case Kind::kList: {
      const size_t count = type.count(address);
      size_t i = 0;
      const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), i);
      if (error != std::errc() || end != key.data() + key.size() || i > count)
        return fail(origin(0), path,
                    "is not an element of the list, which has " + std::to_string(count) + " (count from 0; " +
                        std::to_string(count) + " appends)");
      if (i == count) type.resize(address, count + 1);
      const bool good =
          set_below({{type.inner[0], type.element(address, i)}, path, target.rule}, after, text);
      if (!good && i == count) type.resize(address, count);
      return good;
    }
    default:
      return fail(origin(0), path,
                  "is not a known key: " + target.path + " is one value (" + type_text(type) + ")");
  }
}

}  // namespace blt::config_detail
