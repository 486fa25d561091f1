#include "blt/train/group_layer.h"

#include <algorithm>
#include <thread>
#include <utility>

namespace blt {
namespace {

int64_t bytes_of(const at::Tensor& tensor) { return static_cast<int64_t>(tensor.nbytes()); }

// Without this rank's own part.
int64_t bytes_of_others(const std::vector<int64_t>& counts, int64_t rank) {
  int64_t total = 0;
  for (size_t r = 0; r < counts.size(); ++r) total += static_cast<int64_t>(r) == rank ? 0 : counts[r];
  return total;
}

// Comes at a time, if the transfer itself has come by then.
class Delayed : public Group::Transfer {
 public:
  Delayed(Group::Pending transfer, std::chrono::steady_clock::time_point due)
      : transfer_(std::move(transfer)), due_(due) {}
  void wait() override {
    transfer_->wait();
    std::this_thread::sleep_until(due_);
  }

 private:
  Group::Pending transfer_;
  std::chrono::steady_clock::time_point due_;
};

}  // namespace

GroupLayer::GroupLayer(std::shared_ptr<Group> below)
    : Group(below->rank(), below->size()), below_(std::move(below)) {}

Group::Pending GroupLayer::sum(const at::Tensor& tensor, std::string_view what) {
  return begun(below_->sum(tensor, what), tensor.device(), 2 * bytes_of(tensor) * (size() - 1) / size(),
               what);
}

Group::Pending GroupLayer::broadcast(const at::Tensor& tensor, int64_t root, std::string_view what) {
  return begun(below_->broadcast(tensor, root, what), tensor.device(), size() == 1 ? 0 : bytes_of(tensor),
               what);
}

Group::Pending GroupLayer::reduce_scatter(const at::Tensor& output, const at::Tensor& input,
                                          std::string_view what) {
  return begun(below_->reduce_scatter(output, input, what), input.device(), bytes_of(output) * (size() - 1),
               what);
}

Group::Pending GroupLayer::all_gather(const at::Tensor& output, const at::Tensor& input,
                                      std::string_view what) {
  return begun(below_->all_gather(output, input, what), input.device(), bytes_of(input) * (size() - 1), what);
}

Group::Pending GroupLayer::all_to_all(const at::Tensor& output, const at::Tensor& input,
                                      std::string_view what) {
  return begun(below_->all_to_all(output, input, what), input.device(),
               bytes_of(input) / size() * (size() - 1), what);
}

Group::Pending GroupLayer::all_to_all(const at::Tensor& output, const at::Tensor& input,
                                      const ExchangeCounts& counts, std::string_view what) {
  const int64_t rows =
      std::max(bytes_of_others(counts.sent, rank()), bytes_of_others(counts.received, rank()));
  const int64_t row_bytes =
      input.dim() > 1 ? input.strides()[0] * input.element_size() : input.element_size();
  return begun(below_->all_to_all(output, input, counts, what), input.device(), rows * row_bytes, what);
}

class WatchedGroup::Watched : public Group::Transfer {
 public:
  Watched(WatchedGroup& group, Group::Pending transfer, at::Device device, int64_t bytes,
          std::string_view what)
      : group_(group),
        transfer_(std::move(transfer)),
        device_(device),
        seen_{.what = std::string(what),
              .bytes = bytes,
              .begun = Clock::now(),
              .wait_begun = {},
              .wait_ended = {}} {}

  void wait() override {
    seen_.wait_begun = Clock::now();
    group_.clock_.time(device_, [this] { transfer_->wait(); });
    seen_.wait_ended = Clock::now();
    if (group_.see_) group_.see_(seen_);
  }

 private:
  WatchedGroup& group_;
  Group::Pending transfer_;
  at::Device device_;
  Seen seen_;
};

Group::Pending WatchedGroup::begun(Pending transfer, at::Device device, int64_t bytes,
                                   std::string_view what) {
  return std::make_unique<Watched>(*this, std::move(transfer), device, bytes, what);
}

Group::Pending DelayedGroup::begun(Pending transfer, at::Device, int64_t bytes, std::string_view what) {
  const std::chrono::duration<double> takes(link_.latency_s + static_cast<double>(bytes) / link_.bytes_per_s);
  const Clock::time_point from = std::max(free_at_, Clock::now());
  free_at_ = from + std::chrono::duration_cast<Clock::duration>(takes);
  if (see_) see_({.what = std::string(what), .bytes = bytes, .from = from, .until = free_at_});
  return std::make_unique<Delayed>(std::move(transfer), free_at_);
}

}  // namespace blt
