#include "blt/train/launch.h"

#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <map>
#include <optional>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>

#include "blt/base/error.h"
#include "blt/base/tool.h"
#include "train/rank_store.h"
#include "train/tcp_store.h"

namespace blt {
namespace {

using Clock = std::chrono::steady_clock;

std::string reason(int error) { return std::generic_category().message(error); }

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> result;
  for (std::string& text : texts) result.push_back(text.data());
  result.push_back(nullptr);
  return result;
}

// This process's environment with some variables set.
std::vector<std::string> environment_with(const std::map<std::string, std::string>& set) {
  std::vector<std::string> result;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    const std::string text = *variable;
    if (set.count(text.substr(0, text.find('='))) == 0) result.push_back(text);
  }
  for (const auto& [name, value] : set) result.push_back(fmt::format("{}={}", name, value));
  return result;
}

class Ranks {
 public:
  Ranks(int64_t count, std::vector<std::string> arguments) : count_(count), arguments_(std::move(arguments)) {
    arguments_.insert(arguments_.begin(), program_invocation_short_name);
  }

  void start() {
    for (int64_t rank = 0; rank < count_; ++rank) start(rank);
  }

  bool any() const { return !processes_.empty(); }

  void signal_all(int signal) const {
    for (const auto& [process, rank] : processes_) kill(process, signal);
  }

  // Takes note of those that have ended.
  void collect() {
    int status = 0;
    for (pid_t process = 0; (process = waitpid(-1, &status, WNOHANG)) > 0;) {
      const auto found = processes_.find(process);
      if (found == processes_.end()) continue;
      const int64_t rank = found->second;
      processes_.erase(found);
      if (WIFEXITED(status) && WEXITSTATUS(status) == kDone) continue;
      if (WIFEXITED(status) && WEXITSTATUS(status) == kStopped)
        stopped_ = true;
      else if (!failure_)
        failure_ = failure_of(rank, status);
    }
  }

  struct Failure {
    int exit_code = kFailed;
    std::string message;  // empty: the rank said it itself
    Clock::time_point time = Clock::now();
  };
  const std::optional<Failure>& failure() const { return failure_; }
  bool stopped() const { return stopped_; }

 private:
  void start(int64_t rank) {
    std::map<std::string, std::string> variables = {{"RANK", std::to_string(rank)},
                                                    {"LOCAL_RANK", std::to_string(rank)},
                                                    {"WORLD_SIZE", std::to_string(count_)},
                                                    {"LOCAL_WORLD_SIZE", std::to_string(count_)},
                                                    {"MASTER_ADDR", "127.0.0.1"},
                                                    {"MASTER_PORT", std::to_string(store_->getPort())},
                                                    {"TORCHELASTIC_USE_AGENT_STORE", "True"}};
    const auto unless_set = [&](const char* name, const std::string& value) {
      if (std::getenv(name) == nullptr) variables[name] = value;
    };
    const int64_t threads = std::thread::hardware_concurrency() / count_;
    unless_set("OMP_NUM_THREADS", std::to_string(std::max<int64_t>(threads, 1)));
    // Ready before the fork: behind it, nothing may take memory until the new program runs.
    std::vector<std::string> environment = environment_with(variables);
    const std::vector<char*> argv = pointers(arguments_), envp = pointers(environment);
    const pid_t parent = getpid(), process = fork();
    if (process < 0) throw Error(fmt::format("rank {} cannot be started: {}", rank, reason(errno)));
    if (process == 0) {
      prctl(PR_SET_PDEATHSIG, SIGTERM);  // without its launcher a rank saves and stops
      if (getppid() != parent) _exit(kFailed);
      sigset_t own;  // those that stop it come when it can stop in good order: catch_stop_signals()
      sigemptyset(&own);
      sigaddset(&own, SIGCHLD);
      sigprocmask(SIG_UNBLOCK, &own, nullptr);
      execve("/proc/self/exe", argv.data(), envp.data());
      _exit(kFailed);
    }
    processes_[process] = rank;
  }

  // Those that wait for this rank learn of it here.
  Failure failure_of(int64_t rank, int status) {
    Failure failure;
    std::string text;
    if (WIFEXITED(status)) {
      failure.exit_code = WEXITSTATUS(status);
      text = fmt::format("rank {} failed", rank);
    } else {
      text = fmt::format(
          "rank {} was killed by signal {} ({}){}; --resume auto goes on from the last checkpoint", rank,
          WTERMSIG(status), strsignal(WTERMSIG(status)),
          WTERMSIG(status) == SIGKILL ? ", as the system does where memory runs out" : "");
    }
    if (claim_failure(*store_of_start(store_), text) && !WIFEXITED(status)) failure.message = text;
    return failure;
  }

  int64_t count_;
  std::vector<std::string> arguments_;
  c10::intrusive_ptr<c10d::TCPStore> store_ = tcp_store({.is_server = true});
  std::map<pid_t, int64_t> processes_;  // that run, and their ranks
  std::optional<Failure> failure_;      // the first
  bool stopped_ = false;
};

// A Ctrl-C comes from the terminal and has reached the ranks already.
bool is_from_terminal(const siginfo_t& signal) { return signal.si_code == SI_KERNEL; }

}  // namespace

int launch(int64_t count, const std::vector<std::string>& arguments) {
  constexpr std::chrono::seconds kTimeToEnd(6);  // of the others, after one has failed
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGCHLD, SIGINT, SIGTERM, SIGUSR1}) sigaddset(&signals, signal);
  struct sigaction hangup = {};
  if (sigaction(SIGHUP, nullptr, &hangup) == 0 && hangup.sa_handler != SIG_IGN) sigaddset(&signals, SIGHUP);
  sigprocmask(SIG_BLOCK, &signals, nullptr);
  wait_little_for_names();
  Ranks ranks(count, arguments);
  ranks.start();
  while (ranks.any()) {
    const timespec a_while{.tv_sec = 0, .tv_nsec = 200'000'000};
    siginfo_t signal = {};
    const int number = sigtimedwait(&signals, &signal, &a_while);
    if (number > 0 && number != SIGCHLD && !is_from_terminal(signal)) ranks.signal_all(number);
    ranks.collect();
    if (ranks.failure() && Clock::now() - ranks.failure()->time > kTimeToEnd) ranks.signal_all(SIGKILL);
  }
  if (ranks.failure() && !ranks.failure()->message.empty()) throw Error(ranks.failure()->message);
  if (ranks.failure()) return ranks.failure()->exit_code;
  return ranks.stopped() ? kStopped : kDone;
}

}  // namespace blt
