// Work that runs ahead in threads, and comes back in order.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

namespace blt {

// Threads that take one job after the other and work on them at the same time; results are handed out in the order in which jobs were
// taken, so they do not depend on the number of threads. One consumer calls next(); ready() is thread-safe.
template <class Job, class Result>
class InOrder {
 public:
  struct Options {
    int64_t threads = 1;  // at least 1
    int64_t ahead = 1;    // results that wait or are being worked on, at most; at least 1
  };
  // take: the next job, nullopt at the end; called by one thread at a time, and never again after the end or an exception.
  // work: called by several threads at once. Throws std::system_error when a thread cannot be started.
  InOrder(Options options, std::function<std::optional<Job>()> take, std::function<Result(Job)> work)
      : ahead_(static_cast<size_t>(options.ahead)), take_(std::move(take)), work_(std::move(work)) {
    try {
      for (int64_t i = 0; i < options.threads; ++i) threads_.emplace_back([this] { run(); });
    } catch (...) {  // the system may have no more threads; those that run already end as ever
      stop();
      throw;
    }
  }
  // Takes no more jobs, and waits for those under way.
  ~InOrder() { stop(); }
  InOrder(const InOrder&) = delete;
  InOrder& operator=(const InOrder&) = delete;

  // nullopt at the end, and from then on. What `take` or `work` throws is thrown here when its turn comes, after all results before it,
  // and from then on.
  std::optional<Result> next() {
    std::unique_lock lock(mutex_);
    ready_.wait(lock, [&] { return slots_.empty() ? ended_ : slots_.front().is_done(); });
    if (slots_.empty()) return std::nullopt;
    if (slots_.front().error) std::rethrow_exception(slots_.front().error);
    std::optional<Result> result = std::move(slots_.front().result);
    slots_.pop_front();
    ++given_;
    lock.unlock();
    room_.notify_all();
    return result;
  }

  // Results that wait for next().
  int64_t ready() const {
    const std::lock_guard lock(mutex_);
    int64_t count = 0;
    for (const Slot& slot : slots_) count += slot.result ? 1 : 0;
    return count;
  }

 private:
  struct Slot {
    std::optional<Result> result = {};
    std::exception_ptr error = {};
    bool is_done() const { return result || error; }
  };

  void stop() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    room_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  void run() {
    while (true) {
      std::optional<Job> job;
      uint64_t index = 0;
      {
        const std::lock_guard taking(
            take_mutex_);  // held while waiting: the other threads have nothing to do then either
        {
          std::unique_lock lock(mutex_);
          room_.wait(lock, [&] { return stopping_ || ended_ || slots_.size() < ahead_; });
          if (stopping_ || ended_) return;
        }
        std::exception_ptr error;
        try {
          job = take_();
        } catch (...) {
          error = std::current_exception();
        }
        const std::lock_guard lock(mutex_);
        index = given_ + slots_.size();
        if (job || error) slots_.push_back({.result = {}, .error = error});
        ended_ = !job;
      }
      if (!job) {
        ready_.notify_all();
        return;
      }
      Slot done;
      try {
        done.result = work_(std::move(*job));
      } catch (...) {
        done.error = std::current_exception();
      }
      {
        const std::lock_guard lock(mutex_);
        if (done.error) ended_ = true;
        slots_[index - given_] = std::move(done);
      }
      ready_.notify_all();
    }
  }

  const size_t ahead_;
  const std::function<std::optional<Job>()> take_;
  const std::function<Result(Job)> work_;
  std::mutex take_mutex_;
  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable room_, ready_;
  std::deque<Slot> slots_;  // of jobs that were taken and not handed out
  uint64_t given_ = 0;      // results handed out: the index of the first slot
  bool stopping_ = false, ended_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace blt
