// Finds out that a transfer between devices hangs: whoever waits for it is a device, which cannot say so.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

namespace blt {

// Knows the transfers that are under way. The call that begins one may take `limit`; so may the device until it has come past the oldest that it
// waits for, from when it was told to wait or another was done: it computes between transfers, and the host hands it work ahead of time.
// Thread-safe.
class TransferWatch {
 public:
  using Clock = std::chrono::steady_clock;
  struct Transfer {
    int64_t number = 0;  // among those of the group; increases
    std::string what = {};
  };
  struct Trouble {
    Transfer transfer;
    std::string reason;
  };

  explicit TransferWatch(std::chrono::duration<double> limit) : limit_(limit) {}
  ~TransferWatch();
  TransferWatch(const TransferWatch&) = delete;
  TransferWatch& operator=(const TransferWatch&) = delete;

  // The call that begins it, in which connections are made, is about to be made; has returned.
  void begin(const Transfer& transfer, Clock::time_point now = Clock::now());
  void forget(int64_t number);
  // The device has been told to wait for it. is_done says whether it has come past; that may hang too, and throws where the transfer has failed.
  void watch(const Transfer& transfer, std::function<bool()> is_done, Clock::time_point now = Clock::now());

  // Asks which are done, and takes note of them.
  void look(Clock::time_point now = Clock::now());
  // What has failed, or is the oldest and too late.
  std::optional<Trouble> trouble(Clock::time_point now = Clock::now()) const;

  // Two threads do so from now on, one each, so that a device that does not even say whether it is done is found out too. The first trouble
  // is handed over on the second.
  void start(std::function<void(const Trouble&)> end_run);

 private:
  struct UnderWay {
    Transfer transfer;
    Clock::time_point since;
    std::function<bool()> is_done = {};  // empty: of a call
  };
  bool ends_within_a_moment();

  const std::chrono::duration<double> limit_;
  mutable std::mutex mutex_;
  std::map<int64_t, UnderWay> under_way_;  // by number: the oldest first
  Clock::time_point last_done_ = {};
  std::optional<Trouble> failed_;
  std::condition_variable end_;
  bool ending_ = false;
  std::thread looking_, timing_;
};

}  // namespace blt
