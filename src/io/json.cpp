#include "io/json.h"

#include <algorithm>
#include <set>
#include <utility>
#include <vector>

#include "blt/base/error.h"

namespace blt {

using nlohmann::json;

namespace {

constexpr int kDeepest = 64;  // the deepest of our files has 5

}  // namespace

json parse_json(std::string_view text) {
  // The library takes a zero byte for the end of the text, and so would not see what comes after it.
  if (const size_t zero = text.find('\0'); zero != text.npos) throw JsonError{zero, "there is a zero byte"};
  // The library keeps the last of repeated keys; a reader in another language may keep the first.
  std::vector<std::set<std::string>> objects;
  const auto refuse = [&](int depth, json::parse_event_t event, json& parsed) {
    if (depth > kDeepest) throw JsonError{0, "lists or objects are nested too deep"};
    if (event == json::parse_event_t::object_start) objects.emplace_back();
    if (event == json::parse_event_t::object_end) objects.pop_back();
    if (event == json::parse_event_t::key && !objects.back().insert(parsed.get<std::string>()).second) {
      const std::string key = json_quoted(parsed.get<std::string>());
      throw JsonError{std::min(text.rfind(key), text.size()), "the key " + key + " stands there twice"};
    }
    return true;
  };
  try {
    return json::parse(text.begin(), text.end(), refuse);
  } catch (const json::exception& e) {
    const auto* syntax = dynamic_cast<const json::parse_error*>(&e);
    const size_t offset = syntax == nullptr || syntax->byte == 0 ? 0 : syntax->byte - 1;
    std::string what = e.what();  // "[json.exception.parse_error.101] parse error at line 1, column 2: …"
    if (const size_t colon = what.find(": "); colon != std::string::npos) what = what.substr(colon + 2);
    throw JsonError{std::min(offset, text.size()), std::move(what)};
  }
}

json parse_json(std::string_view text, const std::string& name) {
  try {
    return parse_json(text);
  } catch (const JsonError& e) {
    const auto line = 1 + std::count(text.begin(), text.begin() + static_cast<ptrdiff_t>(e.offset), '\n');
    throw Error(name + ":" + std::to_string(line) + ": is not valid JSON: " + e.what);
  }
}

std::string json_shown(const json& value) {
  if (value.is_array()) return "a list";
  if (value.is_object()) return "an object";
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string json_quoted(std::string_view text) {
  return json(std::string(text)).dump(-1, ' ', false, json::error_handler_t::replace);
}

}  // namespace blt
