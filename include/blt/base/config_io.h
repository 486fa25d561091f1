// Reads and writes the settings that a section describes (config.h): YAML or JSON text, `a.b.c=value`
// overrides, documentation.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "blt/base/config.h"
#include "blt/base/config_type.h"

namespace blt {

// One row of a config's manual.
struct FieldDoc {
  std::string path;           // "model.ngram.sizes", "sources[].path", "schedule(cosine).warmup_steps"
  std::string type;           // "integer", "max | mean | min", "list of paths", "section", …
  std::string default_value;  // as YAML; empty for a section
  std::string bounds;         // "at least 1"; empty without
  std::string help;
};

// A setting in which two configs differ.
struct ConfigDifference {
  std::string
      path;  // "model.ngram.rows"; of a list or an optional as a whole where it has not as many elements in both
  std::string a, b;  // the values as YAML, in one line
};

namespace config_detail {
void load(ConfigValue section, const std::filesystem::path& file, const std::vector<std::string>& overrides);
void parse(ConfigValue section, std::string_view text, const std::string& name, std::string_view at);
void check(ConfigValue section, const std::string& name);
std::string to_yaml(ConfigValue section);
std::string to_json(ConfigValue section);
std::vector<FieldDoc> describe(ConfigValue section);
std::vector<ConfigDifference> compare(ConfigValue a, ConfigValue b);
}  // namespace config_detail

// Reads a YAML file, then applies the overrides in their order: "model.ngram.rows=1000",
// "sources.0.path=more.txt" (an index equal to the length of the list appends), "patcher.kind=space",
// "model.ngram={rows: 10}". Keys that are absent keep their defaults. A section that is given whole, in the file
// or in an override, is its defaults and what stands in it: "model={}" is the default model, whatever the file
// says of it. null (and in a file nothing at all) is not {}: it is an error but for what is optional, which is
// absent then.
//
// Numbers: integers as 500000 or 500_000; floating point as 3e-4. Paths in the file are relative to the file's
// folder, paths in overrides to the working directory; both become absolute ("-" stays, it means standard input).
//
// Throws blt::Error with every problem, one per line, in the order of the file: unknown or repeated keys,
// wrong types, values out of bounds, unknown names and kinds, and what the sections' `validate` finds.
// `run.yaml:3: model.dimm is not a known key (did you mean dim?)`; problems of overrides say `override
// model.dimm=3: …`. A file that is missing, empty or no YAML is one problem.
template <Section S>
S load_config(const std::filesystem::path& file, const std::vector<std::string>& overrides = {}) {
  S section;
  config_detail::load(config_value(section), file, overrides);
  return section;
}

// The same from text; `name` stands where messages name the file. JSON is YAML. With `at`, the section is
// what stands under that dotted path ("libblt"), and the rest of the text is left alone; lines are those of
// the text. Paths stay as they are written.
template <Section S>
S parse_config(std::string_view text, const std::string& name, std::string_view at = {}) {
  S section;
  config_detail::parse(config_value(section), text, name, at);
  return section;
}

// Checks bounds and rules of settings that were made in code. Throws blt::Error with every problem; `name`
// begins each line.
template <Section S>
void check_config(const S& section, const std::string& name) {
  config_detail::check(config_value(section), name);
}

// All fields in the order of the description. Reading it back gives the same settings, bit for bit.
template <Section S>
std::string to_yaml(const S& section) {
  return config_detail::to_yaml(config_value(section));
}
template <Section S>
std::string to_json(const S& section) {
  return config_detail::to_json(config_value(section));
}

// Every setting in which they differ, in the order of the fields.
template <Section S>
std::vector<ConfigDifference> compare_configs(const S& a, const S& b) {
  return config_detail::compare(config_value(a), config_value(b));
}

// Every field, sections before their fields, every kind of every variant.
template <Section S>
std::vector<FieldDoc> describe() {
  const S section;
  return config_detail::describe(config_value(section));
}

// Markdown: a heading and a table for each section, in the order of the fields.
std::string config_markdown(const std::vector<FieldDoc>& fields);

}  // namespace blt
