#include "data/json_line.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <optional>

#include "blt/base/error.h"

namespace blt {
namespace {

using nlohmann::json;

// Takes the parser's events and keeps the one value that is asked for.
class TextFinder : public nlohmann::json_sax<json> {
 public:
  explicit TextFinder(const std::string& field) : field_(field) {}

  bool null() override { return other("null"); }
  bool boolean(bool) override { return other("a boolean"); }
  bool number_integer(number_integer_t) override { return other("a number"); }
  bool number_unsigned(number_unsigned_t) override { return other("a number"); }
  bool number_float(number_float_t, const string_t&) override { return other("a number"); }
  bool binary(binary_t&) override { return other("binary"); }
  bool string(string_t& value) override {
    if (!wanted_) return other("a string");
    wanted_ = false;
    wrong_type_ = nullptr;
    text_ = std::move(value);
    return true;
  }
  bool start_object(std::size_t) override { return enter(other("an object")); }
  bool start_array(std::size_t) override { return enter(other("an array")); }
  bool end_object() override { return leave(); }
  bool end_array() override { return leave(); }
  bool key(string_t& name) override {
    wanted_ = depth_ == 1 && is_object_ && name == field_;
    return true;
  }
  bool parse_error(std::size_t, const std::string&, const json::exception& problem) override {
    // "[json.exception.parse_error.101] parse error at line 1, column 9: syntax error while …"
    const std::string_view message = problem.what();
    const size_t column = message.find("column ");
    error_ = column == std::string_view::npos ? message : message.substr(column);
    return false;
  }

  std::string take(const std::string& where) {
    if (!error_.empty()) throw Error(fmt::format("{}: invalid JSON at {}", where, error_));
    if (!is_object_)
      throw Error(fmt::format("{}: a line of JSON Lines is an object {{\"{}\": …}}, this one is {}", where,
                              field_, root_));
    if (wrong_type_)
      throw Error(
          fmt::format("{}: \"{}\" is a string in every line, here it is {}", where, field_, wrong_type_));
    if (!text_)
      throw Error(
          fmt::format("{}: there is no \"{}\": name the key of the text with text_field", where, field_));
    return std::move(*text_);
  }

 private:
  bool other(const char* type) {
    if (depth_ == 0) {
      root_ = type;
      is_object_ = std::string_view(type) == "an object";
    }
    if (wanted_) {
      wrong_type_ = type;
      text_.reset();
    }
    wanted_ = false;
    return true;
  }
  bool enter(bool result) {
    ++depth_;
    return result;
  }
  bool leave() {
    --depth_;
    return true;
  }

  const std::string& field_;
  int64_t depth_ = 0;
  bool is_object_ = false;
  bool wanted_ = false;  // the next value is the text
  const char* root_ = "empty";
  const char* wrong_type_ = nullptr;
  std::optional<std::string> text_;
  std::string error_;
};

}  // namespace

std::string text_of_json_line(std::string_view line, const std::string& field, const std::string& where) {
  TextFinder finder(field);
  json::sax_parse(line.begin(), line.end(), &finder);
  return finder.take(where);
}

}  // namespace blt
