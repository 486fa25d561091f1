// How values, types and bounds are put into words, the same in messages, help and files.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "blt/base/config_type.h"

namespace blt::config_detail {

// "integer", "max | mean | min", "list of paths", "section", …
std::string type_text(const ConfigType& type);

// "at least 1", "above 0", "between 0 and 1"; empty without bounds
std::string bounds_text(const Rule& rule);

// The shortest text that reads back as the same number; always with a point or an exponent.
std::string number_text(double value);

// In double quotes, escaped as in JSON, which YAML reads too.
std::string quoted_text(std::string_view text);

// A value in one line of YAML; a section as its fields in braces.
std::string flow_text(const ConfigValue& value);

// "a.b", or the one that is not empty
std::string join_path(const std::string& path, std::string_view key);

// Whether `path` is `above` or inside it; everything is inside "".
bool is_at_or_below(const std::string& path, const std::string& above);

// "a, b or c"
std::string either_text(const std::vector<std::string_view>& names);

// The candidate that `given` was probably meant to be; empty when none is near.
std::string_view nearest(std::string_view given, const std::vector<std::string_view>& candidates);

// " (did you mean dim?)", or nothing
std::string did_you_mean(std::string_view given, const std::vector<std::string_view>& known);

// "is not a known key (did you mean dim?)"
std::string unknown_key(std::string_view key, const std::vector<std::string_view>& known);

}  // namespace blt::config_detail
