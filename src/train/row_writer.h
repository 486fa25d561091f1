// Writes a run's numbers without waiting for a disk that hangs.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <future>
#include <string>
#include <utility>
#include <vector>

#include "blt/io/event_file.h"

namespace blt {

// Lines of metrics.jsonl, and what TensorBoard is told at steps.
struct Rows {
  std::string lines = {};
  std::vector<std::pair<int64_t, std::vector<EventFile::Scalar>>> events = {};

  bool empty() const { return lines.empty() && events.empty(); }
  void append(Rows later);
};

// Rows that the disk does not take wait in memory, and go with the next ones. Not thread-safe.
class RowWriter {
 public:
  // name: of the file, for messages. write: called on other threads, one at a time; takes out of `rows` what it has written. Throws blt::Error, which leaves the rest there. It is
  // waited for no longer than `patience`: on a disk that hangs it stays, with all that it holds, until the process ends.
  RowWriter(std::string name, std::function<void(Rows& rows)> write, std::chrono::milliseconds patience)
      : name_(std::move(name)), write_(std::move(write)), patience_(patience) {}
  // Tries once more what waits.
  ~RowWriter();
  RowWriter(const RowWriter&) = delete;
  RowWriter& operator=(const RowWriter&) = delete;

  // Why not all rows are written; empty: they are.
  std::string write(Rows rows);

 private:
  struct Outcome {
    Rows left = {};
    std::string failure = {};
  };
  bool is_under_way(std::chrono::milliseconds patience);

  std::string name_;
  std::function<void(Rows& rows)> write_;
  std::chrono::milliseconds patience_;
  Rows waiting_;
  std::future<Outcome> under_way_;
  std::string failure_;  // of the last that has ended
};

}  // namespace blt
