// JSON that is checked more strictly than the library does by itself.
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace blt {

// Where and why a text is no JSON.
struct JsonError {
  size_t offset = 0;  // bytes from the start of the text
  std::string what;
};

// Throws JsonError: broken syntax, invalid UTF-8, a key twice in one object, lists or objects nested so deep that
// no file of ours can be meant (recursive readers run out of stack on them).
nlohmann::json parse_json(std::string_view text);

// The same; throws blt::Error `name:line: …`.
nlohmann::json parse_json(std::string_view text, const std::string& name);

// The value as messages show it: a list or an object by its kind alone.
std::string json_shown(const nlohmann::json& value);

// The text in quotes, control characters and broken UTF-8 escaped: names from files stand so in messages.
std::string json_quoted(std::string_view text);

}  // namespace blt
