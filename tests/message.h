// Checks what an error says.
#pragma once

#include <gtest/gtest.h>

#include <exception>
#include <string>

namespace blt {

// The message of what `call` throws, without LibTorch's stack trace.
template <class F>
std::string message_of(const F& call) {
  try {
    call();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "(nothing was thrown)";
}

}  // namespace blt

// That `expression` throws with a message that contains `text`.
#define EXPECT_MESSAGE(expression, text)                                      \
  do {                                                                        \
    const std::string said_ = ::blt::message_of([&] { (void)(expression); }); \
    EXPECT_NE(said_.find(text), std::string::npos) << said_;                  \
  } while (false)
