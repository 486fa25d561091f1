#include "data/json_line.h"

#include <fmt/format.h>
#include <simdjson.h>

#include <nlohmann/json.hpp>
#include <optional>

#include "data/document_reader.h"
#include "data/line_reader.h"

namespace blt {
namespace {

using simdjson::dom::element_type;

static_assert(LineReader::kPadding >= simdjson::SIMDJSON_PADDING);

const char* type_name(element_type type) {
  switch (type) {
    case element_type::ARRAY:
      return "an array";
    case element_type::OBJECT:
      return "an object";
    case element_type::STRING:
      return "a string";
    case element_type::BOOL:
      return "a boolean";
    case element_type::NULL_VALUE:
      return "null";
    default:
      return "a number";
  }
}

// simdjson says what is wrong; where it is, nlohmann's parser finds out, which is slow and hardly ever asked.
std::string explain(std::string_view line, simdjson::error_code error) {
  if (error == simdjson::DEPTH_ERROR) return "invalid JSON: nested more than 1024 deep";
  try {
    [[maybe_unused]] const auto value = nlohmann::json::parse(
        line.begin(), line.end(), [](int, nlohmann::json::parse_event_t, nlohmann::json&) { return false; });
  } catch (const nlohmann::json::exception& problem) {
    // "[json.exception.parse_error.101] parse error at line 1, column 9: syntax error while …"
    const std::string_view message = problem.what();
    const size_t column = message.find("column ");
    return fmt::format("invalid JSON at {}",
                       column == std::string_view::npos ? message : message.substr(column));
  }
  return fmt::format("invalid JSON: {}", simdjson::error_message(error));
}

}  // namespace

struct JsonLineParser::Parser {
  simdjson::dom::parser dom;
  std::string quoted;

  simdjson::simdjson_result<simdjson::dom::element> parse(std::string_view json) {
    return dom.parse(reinterpret_cast<const uint8_t*>(json.data()), json.size(), /*realloc_if_needed=*/false);
  }
};

JsonLineParser::JsonLineParser(std::string text_field)
    : field_(std::move(text_field)), parser_(std::make_unique<Parser>()) {}
JsonLineParser::~JsonLineParser() = default;

std::string_view JsonLineParser::text(std::string_view line, const std::function<std::string()>& where) {
  const auto fail = [&](const std::string& what) -> DocumentError {
    return DocumentError(where() + ": " + what);
  };
  simdjson::dom::element root;
  const simdjson::error_code error = parser_->parse(line).get(root);
  if (error) throw fail(explain(line, error));
  simdjson::dom::object object;
  if (root.get(object))
    throw fail(fmt::format("a line of JSON Lines is an object {{\"{}\": …}}, this one is {}", field_,
                           type_name(root.type())));
  std::optional<simdjson::dom::element> found;
  for (const auto& [key, value] : object)
    if (key == field_) found = value;
  if (!found) throw fail(fmt::format("there is no \"{}\": name the key of the text with text_field", field_));
  std::string_view text;
  if (found->get(text))
    throw fail(
        fmt::format("\"{}\" is a string in every line, here it is {}", field_, type_name(found->type())));
  return text;
}

std::optional<std::string_view> JsonLineParser::string(std::string_view characters) {
  std::string& quoted = parser_->quoted;
  quoted.assign(1, '"').append(characters).append(1, '"');
  const size_t size = quoted.size();
  quoted.append(LineReader::kPadding, '\0');
  std::string_view text;
  if (parser_->parse({quoted.data(), size}).get(text)) return std::nullopt;
  return text;
}

}  // namespace blt
