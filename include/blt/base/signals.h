// Stopping in good order: a loop asks stop_requested() between steps, saves, and returns ExitCode::kStopped.
#pragma once

namespace blt {

// From now on the first SIGINT, SIGTERM, SIGUSR1 (batch systems send it before they take a machine away) or SIGHUP (the terminal was closed;
// not where it is ignored, as under nohup) only sets the flag; a second SIGINT
// ends the process at once (exit code 130). first_words: what the first one writes, with a line break, to standard error; must outlive
// the process's signals. Call it once a program can stop in good order; before, and in programs that never do, a signal
// ends them as usual; one that whoever started the process had held back (blocked) until now, comes here. Call it while there is one thread.
void catch_stop_signals(const char* first_words = "");

// Whether a signal has come. Thread-safe.
bool stop_requested();

// Sets the flag as a signal would, for tests and for embedding programs.
void request_stop();

// Forgets an earlier request.
void clear_stop_request();

// A stretch that has nothing to save and no place to ask: while one lives, a signal that catch_stop_signals() catches writes `message`
// and a line break (nothing where it is empty) to standard error and ends the process at once with ExitCode::kStopped. One at a time; `message`
// must outlive it.
class StopAtOnce {
 public:
  explicit StopAtOnce(const char* message);
  ~StopAtOnce();
  StopAtOnce(const StopAtOnce&) = delete;
  StopAtOnce& operator=(const StopAtOnce&) = delete;
};

}  // namespace blt
