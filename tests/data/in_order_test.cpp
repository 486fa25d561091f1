#include "blt/data/in_order.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <numeric>
#include <stdexcept>
#include <system_error>
#include <thread>

#include "blt/base/error.h"
#include "blt/base/rng.h"
#include "message.h"

namespace blt {
namespace {

using Numbers = InOrder<int, int>;

// Jobs 0, 1, …; work of uneven length.
std::function<std::optional<int>()> count_to(int end) {
  return [i = 0, end]() mutable { return i < end ? std::optional<int>(i++) : std::nullopt; };
}
int slow_square(int i) {
  std::this_thread::sleep_for(std::chrono::microseconds(Rng(static_cast<uint64_t>(i), "work").below(300)));
  return i * i;
}

TEST(InOrder, ResultsComeInTheOrderOfTheJobs) {
  for (const int64_t threads : {1, 2, 8})
    for (const int64_t ahead : {1, 2, 50}) {
      Numbers numbers({.threads = threads, .ahead = ahead}, count_to(200), slow_square);
      for (int i = 0; i < 200; ++i) ASSERT_EQ(numbers.next(), i * i) << threads << " " << ahead;
      EXPECT_FALSE(numbers.next());
      EXPECT_FALSE(numbers.next());
    }
}

TEST(InOrder, RunsAheadOnlySoFar) {
  std::atomic<int> taken{0};
  Numbers numbers(
      {.threads = 4, .ahead = 7}, [&] { return std::optional<int>(taken++); }, [](int i) { return i; });
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(numbers.next(), i);
    EXPECT_LE(taken, i + 1 + 7);
  }
  while (numbers.ready() < 7) std::this_thread::yield();
  EXPECT_EQ(taken, 107);
}

TEST(InOrder, AnExceptionArrivesAfterTheResultsBeforeIt) {
  for (const bool while_taking : {true, false})
    for (const int64_t threads : {1, 4}) {
      int next = 0;
      Numbers numbers(
          {.threads = threads, .ahead = 10},
          [&]() -> std::optional<int> {
            if (while_taking && next == 20) throw Error("a.txt:20: is broken");
            return next++;
          },
          [&](int i) {
            if (!while_taking && i >= 20) throw Error("a.txt:" + std::to_string(i) + ": is broken");
            return slow_square(i);
          });
      for (int i = 0; i < 20; ++i) ASSERT_EQ(numbers.next(), i * i);
      EXPECT_MESSAGE(numbers.next(), "a.txt:20: is broken");
      EXPECT_MESSAGE(numbers.next(), "a.txt:20: is broken");
    }
}

TEST(InOrder, EndsAtAnyTimeWithoutWaitingForTheConsumer) {
  for (int trial = 0; trial < 200; ++trial) {
    Rng rng(static_cast<uint64_t>(trial), "trial");
    std::atomic<int> working{0};
    {
      Numbers numbers({.threads = static_cast<int64_t>(1 + rng.below(8)),
                       .ahead = static_cast<int64_t>(1 + rng.below(5))},
                      count_to(static_cast<int>(rng.below(40))), [&](int i) {
                        ++working;
                        const int result = slow_square(i);
                        --working;
                        return result;
                      });
      for (uint64_t i = rng.below(10); i > 0; --i) numbers.next();
    }
    EXPECT_EQ(working, 0) << "no thread is left";
  }
}

// Exits with 7 where the constructor throws.
[[noreturn]] void start_too_many_threads() {
  std::ifstream statm("/proc/self/statm");
  rlim_t pages = 0;
  statm >> pages;
  const rlim_t most = pages * static_cast<rlim_t>(getpagesize()) + (rlim_t{200} << 20);  // some stacks
  const rlimit limit{.rlim_cur = most, .rlim_max = most};
  setrlimit(RLIMIT_AS, &limit);
  try {
    const Numbers numbers({.threads = 1000, .ahead = 4}, count_to(1000000), slow_square);
  } catch (const std::system_error&) {
    std::_Exit(7);
  }
  std::_Exit(0);
}

TEST(InOrderDeathTest, AThreadThatCannotBeStartedIsAnErrorAndEndsTheOthers) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers want more address space than the limit that makes a thread fail";
#endif
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(start_too_many_threads(), testing::ExitedWithCode(7), "");
}

}  // namespace
}  // namespace blt
