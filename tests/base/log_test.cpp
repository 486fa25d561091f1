#include "blt/base/log.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <cstdio>

#include "blt/base/terminal.h"

namespace blt_test {

namespace {

// The level is read at the first line, so each case is a process of its own.
void log_everything(const char* level) {
  setenv("BLT_LOG", level, 1);
  blt::log_debug("one");
  blt::log_info("two {}");  // braces are text, not a format
  blt::log_warning("three");
  blt::log_error("four");
  _exit(0);
}

TEST(LogDeathTest, InformationAndWorseIsShownOnStandardErrorWithoutColors) {
  EXPECT_EXIT(log_everything(""), testing::ExitedWithCode(0),
              "^[0-9:]+ info two \\{\\}\n[0-9:]+ warning three\n[0-9:]+ error four\n$");
}

TEST(LogDeathTest, TheEnvironmentChoosesTheLevel) {
  EXPECT_EXIT(log_everything("debug"), testing::ExitedWithCode(0), "^[0-9:]+ debug one\n[0-9:]+ info");
  EXPECT_EXIT(log_everything("error"), testing::ExitedWithCode(0), "^[0-9:]+ error four\n$");
  EXPECT_EXIT(log_everything("off"), testing::ExitedWithCode(0), "^$");
  EXPECT_EXIT(log_everything("nonsense"), testing::ExitedWithCode(0), "^[0-9:]+ info two");
}

TEST(LogDeathTest, ALineThatIsRewrittenInPlaceEndsFirst) {
  EXPECT_EXIT(
      {
        std::fputs("\rstep 1", stderr);
        blt::OpenLine::begin();
        log_everything("error");
      },
      testing::ExitedWithCode(0), "^\rstep 1\n[0-9:]+ error four\n$");
}

}  // namespace

}  // namespace blt_test
