#include "train/c10d_group.h"

#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <chrono>
#include <optional>
#include <utility>
#include <vector>

#include "blt/base/error.h"
#include "blt/base/log.h"
#include "blt/base/signals.h"
#include "model/device_mark.h"
#include "train/first_line.h"
#include "train/in_time.h"

namespace blt {
namespace {

// A rank that sees a transfer fail first lets the one speak that knows why, then asks what the others are doing.
constexpr std::chrono::milliseconds kWaitForTheFirst(1500), kWaitForAnswers(2000);

// Without its launcher a rank is ended by nobody, nor started again: what is trained is saved while it can be.
void stop_without_launcher(RankStore& store) {
  if (!store.place().launcher_keeps_store || stop_requested()) return;
  if (store.claim_loss()) log_error(fmt::format("{}; the training is saved and stops", store.loss()));
  request_stop();
}

}  // namespace

class C10dGroup::Running : public Group::Transfer {
 public:
  // watched: what says how the device's transfers are; null for those that this thread waits for.
  Running(C10dGroup& group, Work work, TransferWatch::Transfer transfer, at::Device device,
          c10::intrusive_ptr<c10d::Backend> watched)
      : group_(group),
        work_(std::move(work)),
        transfer_(std::move(transfer)),
        device_(device),
        watched_(std::move(watched)) {}
  void wait() override {
    try {
      work_->wait();
    } catch (const std::exception& e) {
      group_.fail(transfer_, first_line(e));
    }
    if (!watched_) return;
    group_.watch_->watch(transfer_, [mark = DeviceMark(device_), backend = std::move(watched_)] {
      if (backend->getError() != c10d::ErrorType::SUCCESS)
        throw Error("the connection to another rank is lost");
      return mark.is_past();
    });
  }

 private:
  C10dGroup& group_;
  Work work_;
  TransferWatch::Transfer transfer_;
  at::Device device_;
  c10::intrusive_ptr<c10d::Backend> watched_;
};

C10dGroup::C10dGroup(std::map<c10::DeviceType, Transport> transports, std::unique_ptr<RankStore> store,
                     c10::intrusive_ptr<c10d::Store> listening, double timeout_s, EndProcess end_process)
    : Group(store->place().rank, store->place().ranks),
      transports_(std::move(transports)),
      timeout_s_(timeout_s),
      end_process_(std::move(end_process)),
      store_(std::move(store)) {
  store_->listen({.doing =
                      [this] {
                        const std::lock_guard lock(mutex_);
                        return fmt::format("{} {}", transfers_, last_);
                      },
                  .patience = to_milliseconds(timeout_s),
                  .on_lost = [this] { stop_without_launcher(*store_); }},
                 std::move(listening));
}

const C10dGroup::Transport& C10dGroup::transport_of(const at::Tensor& tensor) const {
  const auto found = transports_.find(tensor.device().type());
  TORCH_CHECK(found != transports_.end(), "no transport between ranks for tensors on ", tensor.device());
  return found->second;
}

c10::intrusive_ptr<c10d::Backend> C10dGroup::backend_of(const at::Tensor& tensor) {
  c10::intrusive_ptr<c10d::Backend>& backend = backends_[tensor.device().type()];
  if (!backend) backend = transport_of(tensor).make();
  return backend;
}

Group::Pending C10dGroup::start(const at::Tensor& tensor, std::string_view what,
                                const std::function<Work(c10d::Backend&)>& operation) {
  const bool is_watched = transport_of(tensor).is_of_device;
  const c10::intrusive_ptr<c10d::Backend> backend = backend_of(tensor);
  TransferWatch::Transfer transfer{.what = std::string(what)};
  {
    const std::lock_guard lock(mutex_);
    transfer.number = ++transfers_;
    last_ = what;
  }
  if (is_watched && !watch_) {
    watch_ = std::make_unique<TransferWatch>(std::chrono::duration<double>(timeout_s_));
    watch_->start([this](const TransferWatch::Trouble& trouble) { end(trouble); });
  }
  if (is_watched) watch_->begin(transfer);
  try {
    Work work = operation(*backend);
    if (is_watched) watch_->forget(transfer.number);
    return std::make_unique<Running>(*this, std::move(work), std::move(transfer), tensor.device(),
                                     is_watched ? backend : nullptr);
  } catch (const std::exception& e) {
    if (is_watched) watch_->forget(transfer.number);
    fail(transfer, first_line(e));
  }
}

void C10dGroup::end(const TransferWatch::Trouble& trouble) {
  std::string said;
  if (!store_->failure(kWaitForTheFirst)) {
    said = message(trouble.transfer, trouble.reason);
    if (!store_->claim_failure(said)) said.clear();
  }
  end_process_(said);
}

void C10dGroup::fail(const TransferWatch::Transfer& transfer, const std::string& reason) {
  if (const auto told = store_->failure(kWaitForTheFirst)) throw GroupError(*told);
  throw GroupError(message(transfer, reason));
}

std::string C10dGroup::message(const TransferWatch::Transfer& of, const std::string& reason) {
  const std::string transfer = fmt::format("transfer {} ({})", of.number, of.what);
  const std::string limit =
      fmt::format("a transfer may take {:g} s (parallel.timeout_s); {}", timeout_s_, reason);
  const std::vector<std::optional<std::string>> answers = store_->ask_all(kWaitForAnswers);
  if (answers.empty())
    return fmt::format(
        "{}; {} did not come through; {}. Go on with --resume auto when nothing of this run is left",
        store_->loss(), transfer, limit);
  std::vector<int64_t> silent;
  std::string behind;
  for (int64_t r = 0; r < size(); ++r) {
    const std::optional<std::string>& answer = answers[static_cast<size_t>(r)];
    if (!answer) {
      silent.push_back(r);
    } else if (const std::string last = answer->substr(answer->find(' ') + 1);
               std::stoll(*answer) < of.number) {
      behind += fmt::format("rank {} is busy since transfer {} ({}); ", r, std::stoll(*answer), last);
    }
  }
  if (!silent.empty())
    return fmt::format("rank {} hangs or is gone: {} did not come through; {}", list_ranks(silent), transfer,
                       limit);
  if (!behind.empty())
    return fmt::format("{}the others wait in {}, which did not come through; {}", behind, transfer, limit);
  return fmt::format("{} of {} ranks did not come through; {}", transfer, size(), limit);
}

Group::Pending C10dGroup::sum(const at::Tensor& tensor, std::string_view what) {
  return start(tensor, what, [&](c10d::Backend& backend) {
    std::vector<at::Tensor> tensors = {tensor};
    return backend.allreduce(tensors);
  });
}

Group::Pending C10dGroup::broadcast(const at::Tensor& tensor, int64_t root, std::string_view what) {
  return start(tensor, what, [&](c10d::Backend& backend) {
    std::vector<at::Tensor> tensors = {tensor};
    c10d::BroadcastOptions options;
    options.rootRank = root;
    return backend.broadcast(tensors, options);
  });
}

Group::Pending C10dGroup::reduce_scatter(const at::Tensor& output, const at::Tensor& input,
                                         std::string_view what) {
  return start(input, what, [&](c10d::Backend& backend) {
    at::Tensor to = output, from = input;
    return backend._reduce_scatter_base(to, from);
  });
}

Group::Pending C10dGroup::all_gather(const at::Tensor& output, const at::Tensor& input,
                                     std::string_view what) {
  return start(input, what, [&](c10d::Backend& backend) {
    at::Tensor to = output, from = input;
    return backend._allgather_base(to, from);
  });
}

Group::Pending C10dGroup::all_to_all(const at::Tensor& output, const at::Tensor& input,
                                     std::string_view what) {
  return start(input, what, [&](c10d::Backend& backend) {
    at::Tensor to = output, from = input;
    std::vector<int64_t> equal;
    return backend.alltoall_base(to, from, equal, equal);
  });
}

Group::Pending C10dGroup::all_to_all(const at::Tensor& output, const at::Tensor& input,
                                     const ExchangeCounts& counts, std::string_view what) {
  return start(input, what, [&](c10d::Backend& backend) {
    at::Tensor to = output, from = input;
    ExchangeCounts rows = counts;
    return backend.alltoall_base(to, from, rows.received, rows.sent);
  });
}

bool C10dGroup::claim_failure(const std::string& message) { return store_->claim_failure(message); }

}  // namespace blt
