// blt_train with several ranks under way, as launchers start it, and what is to be seen of them from outside.
#pragma once

#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "tools/train_run.h"

namespace blt {

class TrainRanksTest : public TrainRunTest {
 protected:
  TrainRanksTest()
      : TrainRunTest({.entropy_steps = "6",
                      .steps = "8",
                      .data = "  threads: 1\n",
                      .more = "parallel: {bucket_mib: 0.01}\n"}) {
    setenv("OMP_NUM_THREADS", "1", 1);
  }

  pid_t start(const std::string& output, const std::string& more) const {
    return TrainRunTest::start(file("run.yaml") + " output=" + file(output) + " " + more);
  }
  // One rank, as torchrun or another launcher starts it, with more of its environment. What it says goes to the file log0, log1, ...
  pid_t start_rank(int64_t rank, int64_t ranks, uint16_t port, const std::string& more,
                   const std::string& environment = "") const {
    const std::string number = std::to_string(rank), count = std::to_string(ranks);
    const std::string command = "RANK=" + number + " WORLD_SIZE=" + count + " LOCAL_WORLD_SIZE=" + count +
                                " MASTER_ADDR=127.0.0.1 MASTER_PORT=" + std::to_string(port) + " " +
                                environment + " exec " + BLT_BIN_DIR + "/blt_train " + file("run.yaml") +
                                " output=" + file("out") + " " + more + " > /dev/null 2> " +
                                file("log" + number);
    const char* argv[] = {"sh", "-c", command.c_str(), nullptr};
    pid_t process = -1;
    EXPECT_EQ(posix_spawn(&process, "/bin/sh", nullptr, nullptr, const_cast<char**>(argv), environ), 0);
    return process;
  }
  std::vector<pid_t> start_ranks(int64_t ranks, uint16_t port, const std::string& more,
                                 const std::string& environment = "") const {
    std::vector<pid_t> started;
    for (int64_t rank = 0; rank < ranks; ++rank)
      started.push_back(start_rank(rank, ranks, port, more, environment));
    return started;
  }

  std::string said_by_ranks(int64_t ranks) const {
    std::string text;
    for (int64_t rank = 0; rank < ranks; ++rank) text += content_of(folder_ / ("log" + std::to_string(rank)));
    return text;
  }

  static int exit_code_of(pid_t process) {
    const int status = status_of(process);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  // Whether a process that may be another's child is there, and not only what is left of it.
  static bool runs(pid_t process) {
    const std::string stat = content_of("/proc/" + std::to_string(process) + "/stat");
    const size_t name_end = stat.rfind(')');
    return name_end != stat.npos && stat.substr(name_end, 4).find('Z') == stat.npos;
  }
  static bool becomes(const std::function<bool()>& so,
                      std::chrono::seconds longest = std::chrono::seconds(60)) {
    constexpr std::chrono::milliseconds kLook(50);
    for (std::chrono::milliseconds waited(0); waited < longest; waited += kLook) {
      if (so()) return true;
      std::this_thread::sleep_for(kLook);
    }
    return so();
  }
  void wait_for(const std::filesystem::path& path) const {
    ASSERT_TRUE(becomes([&] { return std::filesystem::exists(path); })) << content_of(folder_ / "log");
  }
  // The processes that a launcher started, in the order of their rank.
  static std::vector<pid_t> ranks_of(pid_t launcher) {
    std::istringstream children(
        content_of("/proc/" + std::to_string(launcher) + "/task/" + std::to_string(launcher) + "/children"));
    std::vector<pid_t> result;
    for (pid_t process = 0; children >> process;) result.push_back(process);
    return result;
  }

  // Lines of standard error that the tool itself says.
  static std::vector<std::string> errors_in(const std::string& text) {
    std::vector<std::string> errors;
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);)
      if (line.starts_with("blt_train: ")) errors.push_back(line);
    return errors;
  }
};

}  // namespace blt
