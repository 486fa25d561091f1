// The text of a document in a line of JSON.
#pragma once

#include <string>
#include <string_view>

namespace blt {

// What stands under `field` in the object `line`; of a repeated key the last. Does not build the other
// values. where: `file:line`, the beginning of messages. Throws blt::Error when the line is no JSON object,
// and when the field is missing or no string.
std::string text_of_json_line(std::string_view line, const std::string& field, const std::string& where);

}  // namespace blt
