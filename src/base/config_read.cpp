#include "base/config_read.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <system_error>

#include "base/config_text.h"
#include "blt/base/error.h"

namespace blt::config_detail {

using Kind = ConfigType::Kind;

namespace {

// What stands in the text, in a few words.
std::string given_text(const Tree& tree) {
  constexpr size_t kLongest = 60;
  switch (tree.kind) {
    case Tree::Kind::kNull:
      return "empty (null)";
    case Tree::Kind::kList:
      return "a list";
    case Tree::Kind::kMap:
      return "a section";
    case Tree::Kind::kScalar:
      break;
  }
  const std::string text = tree.text.size() > kLongest ? tree.text.substr(0, kLongest) + "…" : tree.text;
  return tree.quoted || text.empty() ? quoted_text(text) : text;
}

std::vector<std::string_view> field_names(const std::vector<ConfigField>& fields) {
  std::vector<std::string_view> names;
  for (const ConfigField& field : fields) names.push_back(field.name);
  return names;
}

std::string without_separators(const std::string& text) {  // 500_000 -> 500000
  const auto is_digit = [&](size_t i) { return i < text.size() && text[i] >= '0' && text[i] <= '9'; };
  std::string plain;
  for (size_t i = 0; i < text.size(); ++i)
    if (text[i] != '_' || i == 0 || !is_digit(i - 1) || !is_digit(i + 1)) plain += text[i];
  return !plain.empty() && plain[0] == '+' ? plain.substr(1) : plain;
}

template <class T>
std::errc parse_number(const std::string& text, T& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end != text.data() + text.size() ? std::errc::invalid_argument : error;
}

}  // namespace

ConfigReader::Origin ConfigReader::origin(int line) const {
  if (!source_.has_lines) return {source_.where, source_.order};
  return {source_.where + ":" + std::to_string(line), line};
}

bool ConfigReader::fail(const Origin& origin, const std::string& path, const std::string& message) {
  problems_.push_back({origin, path, message});
  return false;
}

void ConfigReader::read(const Tree& tree, const std::string& prefix,
                        const std::optional<std::filesystem::path>& folder) {
  prefix_ = prefix;
  source_ = {.where = file_, .has_lines = true, .folder = folder};
  read_value(tree, {root_, prefix, {}});
}

bool ConfigReader::read_value(const Tree& tree, const Target& target) {
  origins_.insert_or_assign(target.path, origin(tree.line));
  switch (target.value.type->kind) {
    case Kind::kOptional:
      return read_optional(tree, target);
    case Kind::kList:
      return read_list(tree, target);
    case Kind::kSection:
      return read_section(tree, target, /*has_kind=*/false);
    case Kind::kVariant:
      return read_variant(tree, target);
    default:
      return read_scalar(tree, target);
  }
}

bool ConfigReader::read_section(const Tree& tree, const Target& target, bool has_kind) {
  if (tree.kind != Tree::Kind::kMap)
    return fail(origin(tree.line), target.path,
                "must be a section (lines of key: value; {} for the defaults), is " + given_text(tree));
  const std::vector<ConfigField> fields = target.value.type->fields(target.value.address);
  std::vector<std::string_view> known = field_names(fields);
  if (has_kind) known.insert(known.begin(), "kind");
  for (const Tree::Entry& entry : tree.entries) {
    const std::string path = join_path(target.path, entry.key);
    const Tree::Entry* first = tree.find(entry.key);
    if (std::find(known.begin(), known.end(), entry.key) == known.end())
      fail(origin(entry.line), path, unknown_key(entry.key, known));
    else if (first != &entry)
      fail(origin(entry.line), path, "is given twice (first on line " + std::to_string(first->line) + ")");
  }
  for (const ConfigField& field : fields)
    if (const Tree::Entry* entry = tree.find(field.name))
      read_value(*entry->value, {field.value, join_path(target.path, field.name), field.rule});
  return true;
}

bool ConfigReader::choose_kind(const Tree& tree, const Target& target) {
  const ConfigType& type = *target.value.type;
  const std::string path = join_path(target.path, "kind");
  const auto it = std::find(type.names.begin(), type.names.end(), tree.text);
  if (tree.kind != Tree::Kind::kScalar || it == type.names.end())
    return fail(origin(tree.line), path,
                "must be " + either_text(type.names) + ", is " + given_text(tree) +
                    did_you_mean(tree.text, type.names));
  const auto i = static_cast<size_t>(it - type.names.begin());
  if (i != type.chosen(target.value.address)) type.choose(target.value.address, i);
  return true;
}

bool ConfigReader::read_variant(const Tree& tree, const Target& target) {
  const ConfigType& type = *target.value.type;
  if (tree.kind == Tree::Kind::kScalar)
    return choose_kind(tree, target);  // `rule: space` for `rule: {kind: space}`
  if (tree.kind == Tree::Kind::kMap)
    if (const Tree::Entry* kind = tree.find("kind"); kind != nullptr && !choose_kind(*kind->value, target))
      return false;
  const size_t i = type.chosen(target.value.address);
  return read_section(tree, {{type.inner[i], type.element(target.value.address, 0)}, target.path, {}},
                      /*has_kind=*/true);
}

bool ConfigReader::read_optional(const Tree& tree, const Target& target) {
  const ConfigType& type = *target.value.type;
  void* address = target.value.address;
  if (tree.kind == Tree::Kind::kNull) {
    type.resize(address, 0);
    return true;
  }
  const bool was_absent = type.count(address) == 0;
  type.resize(address, 1);
  const bool good = read_value(tree, {{type.inner[0], type.element(address, 0)}, target.path, target.rule});
  if (!good && was_absent) type.resize(address, 0);
  return good;
}

bool ConfigReader::read_list(const Tree& tree, const Target& target) {
  const ConfigType& type = *target.value.type;
  if (tree.kind != Tree::Kind::kList)
    return fail(origin(tree.line), target.path, "must be a list ([] for none), is " + given_text(tree));
  const std::shared_ptr<void> fresh = type.make();
  type.resize(fresh.get(), tree.entries.size());
  bool good = true;
  for (size_t i = 0; i < tree.entries.size(); ++i)
    good &= read_value(*tree.entries[i].value, {{type.inner[0], type.element(fresh.get(), i)},
                                                join_path(target.path, std::to_string(i)),
                                                target.rule});
  if (good) type.move(target.value.address, fresh.get());
  return good;
}

bool ConfigReader::read_number(const Tree& tree, const Target& target, const std::string& given) {
  const bool is_integer = target.value.type->kind == Kind::kInteger;
  const std::string text = without_separators(tree.text);
  int64_t integer = 0;
  double number = 0;
  std::errc error = std::errc::invalid_argument;
  if (!is_integer && (text == ".inf" || text == "-.inf")) {
    error = {};
    number =
        text[0] == '-' ? -std::numeric_limits<double>::infinity() : std::numeric_limits<double>::infinity();
  } else if (!tree.quoted) {
    error = is_integer ? parse_number(text, integer) : parse_number(text, number);
    if (error == std::errc() && !is_integer && !std::isfinite(number)) error = std::errc::invalid_argument;
  }
  if (error == std::errc::result_out_of_range)
    return fail(origin(tree.line), target.path, "does not fit in 64 bits, is " + given);
  if (error != std::errc())
    return fail(origin(tree.line), target.path,
                std::string(is_integer ? "must be an integer, is " : "must be a number, is ") + given);
  if (!within(target.rule, is_integer ? static_cast<double>(integer) : number, given, target.path,
              origin(tree.line)))
    return false;
  if (is_integer)
    *static_cast<int64_t*>(target.value.address) = integer;
  else
    *static_cast<double*>(target.value.address) = number;
  return true;
}

bool ConfigReader::read_scalar(const Tree& tree, const Target& target) {
  const ConfigType& type = *target.value.type;
  void* address = target.value.address;
  const std::string given = given_text(tree);
  const auto wrong = [&](const std::string& wanted) {
    return fail(origin(tree.line), target.path, "must be " + wanted + ", is " + given);
  };
  const bool is_scalar = tree.kind == Tree::Kind::kScalar;
  switch (type.kind) {
    case Kind::kBool:
      if (!is_scalar || tree.quoted || (tree.text != "true" && tree.text != "false"))
        return wrong("true or false");
      *static_cast<bool*>(address) = tree.text == "true";
      return true;
    case Kind::kInteger:
      return is_scalar ? read_number(tree, target, given) : wrong("an integer");
    case Kind::kNumber:
      return is_scalar ? read_number(tree, target, given) : wrong("a number");
    case Kind::kText:
      if (!is_scalar) return wrong("text (\"\" for none)");
      *static_cast<std::string*>(address) = tree.text;
      return true;
    case Kind::kPath: {
      if (!is_scalar) return wrong("a path");
      std::filesystem::path path(tree.text);
      if (source_.folder && !path.empty() && path != "-") path = (*source_.folder / path).lexically_normal();
      *static_cast<std::filesystem::path*>(address) = path;
      return true;
    }
    default:
      break;
  }
  const auto it = std::find(type.names.begin(), type.names.end(), tree.text);
  if (!is_scalar || it == type.names.end())
    return fail(origin(tree.line), target.path,
                "must be " + either_text(type.names) + ", is " + given + did_you_mean(tree.text, type.names));
  type.choose(address, static_cast<size_t>(it - type.names.begin()));
  return true;
}

void ConfigReader::throw_problems() const {
  if (problems_.empty()) return;
  std::vector<const Problem*> sorted;
  for (const Problem& problem : problems_) sorted.push_back(&problem);
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const Problem* a, const Problem* b) { return a->origin.order < b->origin.order; });
  std::string text;
  for (const Problem* problem : sorted) {
    std::string line = problem->origin.where;
    const auto shown = shown_.find(problem->path);
    const std::string& name = shown == shown_.end() ? problem->path : shown->second;
    if (!name.empty()) line += (line.empty() ? "" : ": ") + name;
    const bool begins = line.empty() || problem->text.starts_with(':');  // with what stands before the space
    line += (begins ? "" : name.empty() ? ": " : " ") + problem->text;
    text += (text.empty() ? "" : "\n") + line;
  }
  throw Error(text);
}

}  // namespace blt::config_detail
