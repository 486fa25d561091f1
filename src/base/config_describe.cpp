// The manual of a config: its fields as rows, and the rows as a page.
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/config_text.h"
#include "blt/base/config_io.h"

namespace blt {

namespace config_detail {

using Kind = ConfigType::Kind;

namespace {

bool has_sections(const ConfigType& type) {
  if (type.kind == Kind::kOptional || type.kind == Kind::kList) return has_sections(*type.inner[0]);
  return type.kind == Kind::kSection || type.kind == Kind::kVariant;
}

void describe_inside(const ConfigValue& value, const std::string& path, std::vector<FieldDoc>& rows) {
  const ConfigType& type = *value.type;
  switch (type.kind) {
    case Kind::kSection:
      for (const ConfigField& field : type.fields(value.address)) {
        const ConfigType& inner = *field.value.type;
        const bool is_single = inner.kind == Kind::kSection || inner.kind == Kind::kVariant;
        std::string standing = is_single ? "" : flow_text(field.value);
        if (inner.kind == Kind::kVariant) standing = inner.names[inner.chosen(field.value.address)];
        const std::string here = join_path(path, field.name);
        rows.push_back({here, type_text(inner), standing, bounds_text(field.rule), std::string(field.help)});
        if (has_sections(inner)) describe_inside(field.value, here, rows);
      }
      break;
    case Kind::kOptional:
    case Kind::kList: {
      const std::shared_ptr<void> element = type.inner[0]->make();
      const std::string here = type.kind == Kind::kList ? path + "[]" : path;
      const bool is_present = type.kind == Kind::kOptional && type.count(value.address) == 1;
      describe_inside({type.inner[0], is_present ? type.element(value.address, 0) : element.get()}, here,
                      rows);
      break;
    }
    case Kind::kVariant:
      for (size_t i = 0; i < type.names.size(); ++i) {
        const std::shared_ptr<void> fresh = type.inner[i]->make();
        const bool is_chosen = i == type.chosen(value.address);
        describe_inside({type.inner[i], is_chosen ? type.element(value.address, 0) : fresh.get()},
                        path + "(" + std::string(type.names[i]) + ")", rows);
      }
      break;
    default:
      break;
  }
}

std::string cell(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    if (c == '|') escaped += '\\';
    escaped += c == '\n' ? ' ' : c;
  }
  return escaped;
}

}  // namespace

std::vector<FieldDoc> describe(ConfigValue section) {
  std::vector<FieldDoc> rows;
  describe_inside(section, "", rows);
  return rows;
}

}  // namespace config_detail

std::string config_markdown(const std::vector<FieldDoc>& fields) {
  using config_detail::cell;
  // "schedule(cosine)" of "schedule(cosine).warmup_steps"
  const auto section_of = [](const std::string& path) {
    const size_t dot = path.rfind('.');
    return path.substr(0, dot == path.npos ? 0 : dot);
  };
  std::vector<std::string> sections;
  std::map<std::string, std::string> tables, meanings;
  for (const FieldDoc& field : fields) {
    const std::string section = section_of(field.path);
    if (!tables.contains(section)) sections.push_back(section);
    const auto code = [](const std::string& text) { return text.empty() ? "" : "`" + cell(text) + "`"; };
    const std::string key = section.empty() ? field.path : field.path.substr(section.size() + 1);
    tables[section] += "| " + code(key) + " | " + cell(field.type) + " | " + code(field.default_value) +
                       " | " + cell(field.bounds) + " | " + cell(field.help) + " |\n";
    meanings[field.path] = field.help;
  }
  std::string page;
  for (const std::string& section : sections) {
    const auto meaning = meanings.find(section.substr(0, section.find_last_not_of("[]") + 1));
    if (!section.empty()) page += "## `" + section + "`\n\n";
    if (meaning != meanings.end()) page += meaning->second + "\n\n";
    page += "| key | type | default | bounds | meaning |\n|---|---|---|---|---|\n" + tables[section] + "\n";
  }
  return page;
}

}  // namespace blt
