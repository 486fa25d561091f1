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
#include "train/transfer_watch.h"

namespace blt {

class C10dGroup : public Group {
 public:
  // Moves what lies in a kind of memory, such as the host's or that of GPUs.
  struct Transport {
    // Is called when the first such tensor comes, on all ranks.
    std::function<c10::intrusive_ptr<c10d::Backend>()> make;
    // Its wait() returns before a transfer has come through: a device waits. Then transfers are watched, and one that hangs or fails ends the
    // process, as nobody could be told who is waiting for a device.
    bool is_of_device = false;
  };
  // Is called on another thread, and ends the process. Message: what is to be said; empty: another rank has said it.
  using EndProcess = std::function<void(const std::string& message)>;
  // listening: another connection to the store. timeout_s: how long a transfer may take, for messages, and for the devices' transfers; the
  // others' backends know theirs.
  C10dGroup(std::map<c10::DeviceType, Transport> transports, std::unique_ptr<RankStore> store,
            c10::intrusive_ptr<c10d::Store> listening, double timeout_s, EndProcess end_process);

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
  const Transport& transport_of(const at::Tensor& tensor) const;
  c10::intrusive_ptr<c10d::Backend> backend_of(const at::Tensor& tensor);
  // A transfer failed: finds out whose fault it is.
  [[noreturn]] void fail(const TransferWatch::Transfer& transfer, const std::string& reason);
  void end(const TransferWatch::Trouble& trouble);
  std::string message(const TransferWatch::Transfer& of, const std::string& reason);

  std::map<c10::DeviceType, Transport> transports_;
  std::map<c10::DeviceType, c10::intrusive_ptr<c10d::Backend>> backends_;
  double timeout_s_;
  EndProcess end_process_;
  std::mutex mutex_;  // of what follows, for the thread that answers
  int64_t transfers_ = 0;
  std::string last_;                      // what the last one is called
  std::unique_ptr<RankStore> store_;      // its thread uses the rest
  std::unique_ptr<TransferWatch> watch_;  // so do its threads; null: nothing is to be watched
};

}  // namespace blt
