// Groups over another group: they see each transfer, and do not move anything themselves.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "blt/train/group.h"
#include "blt/train/wait_clock.h"

namespace blt {

// Hands every operation on to `below`. Not thread-safe, as groups are.
class GroupLayer : public Group {
 public:
  explicit GroupLayer(std::shared_ptr<Group> below);

  bool is_alone() const final { return below_->is_alone(); }
  Pending sum(const at::Tensor& tensor, std::string_view what) final;
  Pending broadcast(const at::Tensor& tensor, int64_t root, std::string_view what) final;
  Pending reduce_scatter(const at::Tensor& output, const at::Tensor& input, std::string_view what) final;
  Pending all_gather(const at::Tensor& output, const at::Tensor& input, std::string_view what) final;
  Pending all_to_all(const at::Tensor& output, const at::Tensor& input, std::string_view what) final;
  Pending all_to_all(const at::Tensor& output, const at::Tensor& input, const ExchangeCounts& counts,
                     std::string_view what) final;
  bool claim_failure(const std::string& message) final { return below_->claim_failure(message); }

 protected:
  // What the caller gets for a transfer of tensors on `device` that has begun. bytes: what goes over this rank's link in the direction that has more, for the
  // usual algorithms (rings; a broadcast passes each rank once).
  virtual Pending begun(Pending transfer, at::Device device, int64_t bytes, std::string_view what) = 0;

 private:
  std::shared_ptr<Group> below_;
};

// Measures how long this rank, or the device that it trains on, waits for transfers: for the others to begin theirs, and for the bytes.
class WatchedGroup : public GroupLayer {
 public:
  using Clock = std::chrono::steady_clock;
  struct Seen {
    std::string what;
    int64_t bytes = 0;
    Clock::time_point begun, wait_begun, wait_ended;
  };
  // `see` is called after each wait of the host; may be empty.
  explicit WatchedGroup(std::shared_ptr<Group> below, std::function<void(const Seen&)> see = {},
                        at::Device device = at::kCPU)
      : GroupLayer(std::move(below)), see_(std::move(see)), clock_(device) {}

  Waits take_waits() { return clock_.take(); }  // since the last call

 protected:
  Pending begun(Pending transfer, at::Device device, int64_t bytes, std::string_view what) override;

 private:
  class Watched;
  std::function<void(const Seen&)> see_;
  WaitClock clock_;
};

// A network of one link a rank, for measurements where the real one is the machine's own memory: a transfer is there at the earliest when
// latency + bytes / bandwidth have passed since it was begun and the rank's transfers before it were there. Whoever waits sleeps.
struct LinkSpeed {
  double latency_s = 0;
  double bytes_per_s = 1e9;
};
class DelayedGroup : public GroupLayer {
 public:
  using Clock = std::chrono::steady_clock;
  struct Carried {
    std::string what;
    int64_t bytes = 0;
    Clock::time_point from, until;  // on the link
  };
  // `see` is called when a transfer begins; may be empty.
  DelayedGroup(std::shared_ptr<Group> below, LinkSpeed link, std::function<void(const Carried&)> see = {})
      : GroupLayer(std::move(below)), link_(link), see_(std::move(see)) {}

 protected:
  Pending begun(Pending transfer, at::Device device, int64_t bytes, std::string_view what) override;

 private:
  LinkSpeed link_;
  std::function<void(const Carried&)> see_;
  Clock::time_point free_at_ = {};  // the link
};

}  // namespace blt
