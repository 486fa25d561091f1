// Settings as YAML and JSON, with every field, so that what is written says all that a run used.
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "base/config_text.h"
#include "blt/base/config_io.h"

namespace blt::config_detail {

using Kind = ConfigType::Kind;

namespace {

// The keys of a section or of the alternative of a variant; `kind` has no value and comes first.
struct Member {
  std::string key;
  ConfigValue value;
  std::string kind;  // not empty: this is the key `kind`
};

std::vector<Member> members(const ConfigValue& value) {
  std::vector<Member> list;
  ConfigValue section = value;
  if (value.type->kind == Kind::kVariant) {
    const size_t i = value.type->chosen(value.address);
    list.push_back({"kind", {}, std::string(value.type->names[i])});
    section = {value.type->inner[i], value.type->element(value.address, 0)};
  }
  for (const ConfigField& field : section.type->fields(section.address))
    list.push_back({std::string(field.name), field.value, ""});
  return list;
}

// What an optional holds; an absent one stays as it is.
ConfigValue held(ConfigValue value) {
  while (value.type->kind == Kind::kOptional && value.type->count(value.address) == 1)
    value = {value.type->inner[0], value.type->element(value.address, 0)};
  return value;
}

bool is_section(const ConfigValue& value) {
  return value.type->kind == Kind::kSection || value.type->kind == Kind::kVariant;
}

bool is_list_of_sections(const ConfigValue& value) {
  if (value.type->kind != Kind::kList) return false;
  const Kind element = value.type->inner[0]->kind;
  return value.type->count(value.address) > 0 && (element == Kind::kSection || element == Kind::kVariant);
}

void write_yaml(const ConfigValue& section, const std::string& indent, bool first_is_indented,
                std::string& out) {
  bool indented = first_is_indented;
  for (const Member& member : members(section)) {
    out += (indented ? "" : indent) + member.key + ":";
    indented = false;
    if (!member.kind.empty()) {
      out += " " + member.kind + "\n";
      continue;
    }
    const ConfigValue value = held(member.value);
    if (is_section(value) && !members(value).empty()) {
      out += "\n";
      write_yaml(value, indent + "  ", false, out);
    } else if (is_list_of_sections(value)) {
      out += "\n";
      for (size_t i = 0; i < value.type->count(value.address); ++i) {
        const ConfigValue element{value.type->inner[0], value.type->element(value.address, i)};
        out += indent + "  - ";
        if (members(element).empty()) out += "{}\n";
        write_yaml(element, indent + "    ", true, out);
      }
    } else {
      out += " " + flow_text(value) + "\n";
    }
  }
}

void write_json(const ConfigValue& any, const std::string& indent, std::string& out) {
  const ConfigValue value = held(any);
  const ConfigType& type = *value.type;
  const std::string deeper = indent + "  ";
  if (is_section(value)) {
    out += "{";
    std::string separator = "\n";
    for (const Member& member : members(value)) {
      out += separator + deeper + quoted_text(member.key) + ": ";
      if (member.kind.empty())
        write_json(member.value, deeper, out);
      else
        out += quoted_text(member.kind);
      separator = ",\n";
    }
    out += separator == "\n" ? "}" : "\n" + indent + "}";
  } else if (type.kind == Kind::kList) {
    const bool lines = is_list_of_sections(value);
    out += "[";
    for (size_t i = 0; i < type.count(value.address); ++i) {
      out += i == 0 ? "" : lines ? "," : ", ";
      if (lines) out += "\n" + deeper;
      write_json({type.inner[0], type.element(value.address, i)}, deeper, out);
    }
    out += lines ? "\n" + indent + "]" : "]";
  } else if (type.kind == Kind::kText) {
    out += quoted_text(*static_cast<const std::string*>(value.address));
  } else if (type.kind == Kind::kPath) {
    out += quoted_text(static_cast<const std::filesystem::path*>(value.address)->string());
  } else if (const std::string text = flow_text(value);
             type.kind == Kind::kChoice || text.ends_with(".inf")) {
    out += quoted_text(text);  // JSON has no infinity; the reader takes ".inf"
  } else {
    out += text;
  }
}

}  // namespace

std::string to_yaml(ConfigValue section) {
  std::string out;
  write_yaml(section, "", false, out);
  return out.empty() ? "{}\n" : out;
}

std::string to_json(ConfigValue section) {
  std::string out;
  write_json(section, "", out);
  return out + "\n";
}

}  // namespace blt::config_detail
