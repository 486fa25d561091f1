// A line of JSON Lines that is too long to be held.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "data/json_line.h"
#include "data/line_reader.h"

namespace blt {

// Its text comes piece by piece. What stands around the text is held, and parsed as a line with an empty text when the text is over: the
// same lines are invalid as among shorter ones, but a broken one is found out behind the pieces that were handed out before. Not
// thread-safe.
class LongLine {
 public:
  // begin: what lines.next() gave of the line. lines and parser are used until the text is over. where: as JsonLineParser::text.
  // Throws DocumentError when the text does not begin there.
  LongLine(LineReader& lines, JsonLineParser& parser, std::string_view begin,
           std::function<std::string()> where);

  // The next bytes of the text, until the next call; none when it is over, and then so is the line. Throws DocumentError for what
  // JsonLineParser::text refuses, for a repeated text field, and when more than lines.longest_held() bytes stand behind the text.
  std::string_view next();

 private:
  void finish();

  LineReader& lines_;
  JsonLineParser& parser_;
  std::function<std::string()> where_;
  std::string around_;     // the line up to the text, its opening quote included
  std::string raw_;        // characters of the text, and behind it
  size_t used_ = 0;        // of raw_
  uint64_t text_raw_ = 0;  // characters of the text that are handed out
  bool closed_ = false, over_ = false;
};

}  // namespace blt
