// A group over one of PyTorch's own transports (c10d).
#pragma once

#include <torch/csrc/distributed/c10d/Backend.hpp>

#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "blt/train/group.h"
#include "train/rank_store.h"

namespace blt {

class C10dGroup : public Group {
 public:
  // timeout_s: of the backend's transfers, for messages.
  C10dGroup(c10::intrusive_ptr<c10d::Backend> backend, std::unique_ptr<RankStore> store, double timeout_s);

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
  Pending start(std::string_view what, const std::function<Work()>& operation);
  // A transfer failed: finds out whose fault it is.
  [[noreturn]] void fail(const std::string& what, int64_t number, const std::string& reason);
  std::string message(const std::string& what, int64_t number, const std::string& reason);

  c10::intrusive_ptr<c10d::Backend> backend_;
  double timeout_s_;
  std::mutex mutex_;  // of what follows, for the thread that answers
  int64_t transfers_ = 0;
  std::string last_;                  // what the last one is called
  std::unique_ptr<RankStore> store_;  // last: its thread uses the rest
};

}  // namespace blt
