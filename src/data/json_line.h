// The text of a document in a line of JSON.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace blt {

// Keeps the memory that parsing wants. Not thread-safe.
class JsonLineParser {
 public:
  explicit JsonLineParser(std::string text_field);
  ~JsonLineParser();

  // What stands under the field in the object `line`, until the next call; of a repeated key the last. line: LineReader::kPadding bytes
  // behind it may be read. where: `file:line`, the beginning of messages. Throws DocumentError when the line is no JSON object (RFC 8259,
  // at most 1024 deep), and when the field is missing or no string.
  std::string_view text(std::string_view line, const std::function<std::string()>& where);

  // What the JSON string with these characters between its quotes says, until the next call; nullopt where it is none.
  std::optional<std::string_view> string(std::string_view characters);

  const std::string& text_field() const { return field_; }

 private:
  struct Parser;
  std::string field_;
  std::unique_ptr<Parser> parser_;
};

}  // namespace blt
