#include "blt/base/signals.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <initializer_list>

#include "blt/base/terminal.h"
#include "blt/base/tool.h"

namespace blt {

namespace {

std::atomic<bool> stop{false};
std::atomic<const char*> last_words{nullptr};  // of a StopAtOnce
std::atomic<const char*> first_words{""};
static_assert(std::atomic<bool>::is_always_lock_free && std::atomic<const char*>::is_always_lock_free,
              "signal handlers may only touch lock-free atomics");

// Whether somebody listens makes no difference.
void say(std::initializer_list<const char*> texts) {
  for (const char* text : texts)
    if (write(STDERR_FILENO, text, std::strlen(text)) < 0) return;
}

extern "C" void on_stop_signal(int signal) {
  constexpr int kInterrupted = 130;  // as shells report a Ctrl-C
  if (const char* message = last_words.load()) {
    if (*message != '\0') say({message, "\n"});
    _exit(kStopped);
  }
  if (!stop.exchange(true)) {
    const char* words = first_words.load();
    if (*words != '\0') say({OpenLine::forget() ? "\n" : "", words, "\n"});
  } else if (signal == SIGINT)
    _exit(kInterrupted);
}

}  // namespace

void catch_stop_signals(const char* words) {
  first_words.store(words);
  struct sigaction action = {};
  action.sa_handler = on_stop_signal;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;  // a read or write under way goes on
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGUSR1, &action, nullptr);
  struct sigaction before = {};  // under nohup a closed terminal changes nothing
  if (sigaction(SIGHUP, nullptr, &before) == 0 && before.sa_handler != SIG_IGN)
    sigaction(SIGHUP, &action, nullptr);
  sigset_t held_back;
  sigemptyset(&held_back);
  for (const int signal : {SIGINT, SIGTERM, SIGUSR1, SIGHUP}) sigaddset(&held_back, signal);
  sigprocmask(SIG_UNBLOCK, &held_back, nullptr);
}

bool stop_requested() { return stop.load(); }
void request_stop() { stop.store(true); }
void clear_stop_request() { stop.store(false); }

StopAtOnce::StopAtOnce(const char* message) { last_words.store(message); }
StopAtOnce::~StopAtOnce() { last_words.store(nullptr); }

}  // namespace blt
