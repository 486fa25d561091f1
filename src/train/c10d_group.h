// A group over one of PyTorch's own transports (c10d).
#pragma once

#include <torch/csrc/distributed/c10d/Backend.hpp>

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "blt/train/group.h"
#include "train/rank_store.h"

namespace blt {

// A device waits for a transfer between devices itself: wait() returns before it has come through, and what hangs is ended by c10d's own watchdog.
class C10dGroup : public Group {
 public:
  // Moves what lies in a kind of memory, such as the host's or that of GPUs. Made when the first such tensor comes, on all ranks.
  using MakeBackend = std::function<c10::intrusive_ptr<c10d::Backend>()>;
  // timeout_s: of the backends' transfers, for messages.
  C10dGroup(std::map<c10::DeviceType, MakeBackend> makers, std::unique_ptr<RankStore> store,
            double timeout_s);

  Pending sum(const at::Tensor& tensor, std::string_view what) override;
  Pending broadcast(const at::Tensor& tensor, int64_t root, std::string_view what) override;
  Pending reduce_scatter(const at::Tensor& output, const at::Tensor& input, std::string_view what) override;
  Pending all_gather(const at::Tensor& output, const at::Tensor& input, std::string_view what) override;
  Pending all_to_all(const at::Tensor& output, const at::Tensor& input, std::string_view what) override;
  Pending all_to_all(const at::Tensor& output, const at::Tensor& input, const ExchangeCounts& counts,
                     std::string_view what) override;
  bool claim_failure(const std::string& message) override;

 private:
  class Running;
  using Work = c10::intrusive_ptr<c10d::Work>;
  // Of a tensor that the operation moves.
  Pending start(const at::Tensor& tensor, std::string_view what,
                const std::function<Work(c10d::Backend&)>& operation);
  c10d::Backend& backend_of(const at::Tensor& tensor);
  // A transfer failed: finds out whose fault it is.
  [[noreturn]] void fail(const std::string& what, int64_t number, const std::string& reason);
  std::string message(const std::string& what, int64_t number, const std::string& reason);

  std::map<c10::DeviceType, MakeBackend> makers_;
  std::map<c10::DeviceType, c10::intrusive_ptr<c10d::Backend>> backends_;
  double timeout_s_;
  std::mutex mutex_;  // of what follows, for the thread that answers
  int64_t transfers_ = 0;
  std::string last_;                  // what the last one is called
  std::unique_ptr<RankStore> store_;  // last: its thread uses the rest
};

}  // namespace blt
