#include "blt/base/signals.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include "blt/base/terminal.h"

namespace blt_test {

namespace {

TEST(SignalsDeathTest, TheFirstSignalOnlySetsTheFlag) {
  for (const int signal : {SIGINT, SIGTERM, SIGUSR1}) {
    EXPECT_EXIT(
        {
          blt::catch_stop_signals();
          const bool before = blt::stop_requested();
          raise(signal);
          _exit(!before && blt::stop_requested() ? 0 : 1);
        },
        testing::ExitedWithCode(0), "");
  }
}

TEST(SignalsDeathTest, TheFirstSignalIsAnsweredBelowALineThatWasOpen) {
  EXPECT_EXIT(
      {
        blt::catch_stop_signals("stopping soon");
        blt::OpenLine::begin();
        raise(SIGINT);
        blt::OpenLine::end();  // has ended
        raise(SIGTERM);
        _exit(0);
      },
      testing::ExitedWithCode(0), "^\nstopping soon\n$");
}

TEST(SignalsDeathTest, ASecondInterruptEndsTheProcess) {
  EXPECT_EXIT(
      {
        blt::catch_stop_signals();
        raise(SIGINT);
        raise(SIGINT);
        _exit(0);
      },
      testing::ExitedWithCode(130), "");
}

TEST(SignalsDeathTest, ASecondTerminationWaitsForTheEnd) {
  EXPECT_EXIT(
      {
        blt::catch_stop_signals();
        raise(SIGTERM);
        raise(SIGTERM);
        _exit(blt::stop_requested() ? 0 : 1);
      },
      testing::ExitedWithCode(0), "");
}

TEST(SignalsDeathTest, WhereNothingIsToBeSavedASignalEndsTheProcessAtOnce) {
  for (const int signal : {SIGINT, SIGTERM, SIGUSR1}) {
    EXPECT_EXIT(
        {
          blt::catch_stop_signals();
          const blt::StopAtOnce starting("nothing is lost");
          raise(signal);
          _exit(0);
        },
        testing::ExitedWithCode(3), "^nothing is lost\n$");
  }
  EXPECT_EXIT(
      {
        blt::catch_stop_signals();
        { const blt::StopAtOnce starting("nothing is lost"); }
        raise(SIGINT);
        _exit(blt::stop_requested() ? 0 : 1);
      },
      testing::ExitedWithCode(0), "");
}

TEST(Signals, ARequestCanBeMadeAndForgotten) {
  EXPECT_FALSE(blt::stop_requested());
  blt::request_stop();
  EXPECT_TRUE(blt::stop_requested());
  blt::clear_stop_request();
  EXPECT_FALSE(blt::stop_requested());
}

}  // namespace

}  // namespace blt_test
