// Puts text into settings, and collects what is wrong on the way.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/config_tree.h"
#include "blt/base/config_type.h"

namespace blt::config_detail {

class ConfigReader {
 public:
  // name: the file's, for messages. shown: what they call the values at some paths, where that is not the path ("--max-bytes").
  ConfigReader(ConfigValue root, std::string name, std::map<std::string, std::string> shown = {})
      : root_(root), file_(std::move(name)), shown_(std::move(shown)) {}

  // Reads a file's tree into the root. `prefix` is the path of the root, for messages; paths are relative to `folder`, where there is
  // one.
  void read(const Tree& tree, const std::string& prefix, const std::optional<std::filesystem::path>& folder);

  // Reads "a.b.c=value". Paths are relative to the working directory.
  void override_with(const std::string& text);

  // Sets the value at `path`, or a list from all of `values`. Paths stay as they are.
  void set(const ConfigField& field, const std::string& path, const std::vector<std::string>& values);

  // Whether all values, wherever they come from, are within their bounds.
  bool check_bounds();

  // Asks the sections for what breaks their own rules. Wants values within bounds.
  void validate();

  // Throws what was found, a line each, in the order of the file, then of the overrides.
  void throw_problems() const;

 private:
  struct Source {            // of what is read at the moment
    std::string where = {};  // the file's name, or an override
    bool has_lines = false;  // it is a file
    int order = 0;           // of its problems, where it has no lines
    std::optional<std::filesystem::path> folder = {};
  };
  struct Origin {
    std::string where;
    int order;
  };
  struct Target {
    ConfigValue value;
    std::string path;
    Rule rule;
  };
  struct Problem {
    Origin origin;
    std::string path, text;
  };

  Origin origin(int line) const;
  bool fail(const Origin& origin, const std::string& path, const std::string& message);  // returns false

  // Each returns whether the value can be used; false has reported why and left the value as it was. A section can always be used:
  // its fields are good or as they were.
  bool read_value(const Tree& tree, const Target& target);
  bool read_section(const Tree& tree, const Target& target, bool has_kind);
  bool read_variant(const Tree& tree, const Target& target);
  bool read_list(const Tree& tree, const Target& target);
  bool read_optional(const Tree& tree, const Target& target);
  bool read_scalar(const Tree& tree, const Target& target);
  bool read_number(const Tree& tree, const Target& target, const std::string& given);
  bool choose_kind(const Tree& tree, const Target& target);

  bool set_below(const Target& target, std::string_view rest, const std::string& text);
  bool set_here(const Target& target, const std::string& text);
  void reset_section(const Target& target);
  bool within(const Rule& rule, double number, const std::string& given, const std::string& path,
              const Origin& origin);
  template <class Visit>
  void walk(const Target& target, const Visit& visit);

  ConfigValue root_;
  std::string file_, prefix_;
  std::map<std::string, std::string> shown_;
  Source source_;
  int num_overrides_ = 0;
  std::vector<Problem> problems_;
  std::map<std::string, Origin> origins_;  // where each path was read last
};

}  // namespace blt::config_detail
