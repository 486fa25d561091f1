#include "train/c10d_group.h"

#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <chrono>
#include <optional>
#include <utility>
#include <vector>

#include "blt/base/log.h"
#include "blt/base/signals.h"
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
  Running(C10dGroup& group, Work work, std::string what, int64_t number)
      : group_(group), work_(std::move(work)), what_(std::move(what)), number_(number) {}

  void wait() override {
    try {
      work_->wait();
    } catch (const std::exception& e) {
      group_.fail(what_, number_, first_line(e));
    }
  }

 private:
  C10dGroup& group_;
  Work work_;
  std::string what_;
  int64_t number_;
};

C10dGroup::C10dGroup(std::map<c10::DeviceType, MakeBackend> makers, std::unique_ptr<RankStore> store,
                     double timeout_s)
    : Group(store->place().rank, store->place().ranks),
      makers_(std::move(makers)),
      timeout_s_(timeout_s),
      store_(std::move(store)) {
  store_->listen({.doing =
                      [this] {
                        const std::lock_guard lock(mutex_);
                        return fmt::format("{} {}", transfers_, last_);
                      },
                  .patience = to_milliseconds(timeout_s),
                  .on_lost = [this] { stop_without_launcher(*store_); }});
}

c10d::Backend& C10dGroup::backend_of(const at::Tensor& tensor) {
  const c10::DeviceType kind = tensor.device().type();
  c10::intrusive_ptr<c10d::Backend>& backend = backends_[kind];
  if (!backend) {
    const auto maker = makers_.find(kind);
    TORCH_CHECK(maker != makers_.end(), "no transport between ranks for tensors on ", tensor.device());
    backend = maker->second();
  }
  return *backend;
}

Group::Pending C10dGroup::start(const at::Tensor& tensor, std::string_view what,
                                const std::function<Work(c10d::Backend&)>& operation) {
  c10d::Backend& backend = backend_of(tensor);
  int64_t number = 0;
  {
    const std::lock_guard lock(mutex_);
    number = ++transfers_;
    last_ = what;
  }
  try {
    return std::make_unique<Running>(*this, operation(backend), std::string(what), number);
  } catch (const std::exception& e) {
    fail(std::string(what), number, first_line(e));
  }
}

void C10dGroup::fail(const std::string& what, int64_t number, const std::string& reason) {
  if (const auto told = store_->failure(kWaitForTheFirst)) throw GroupError(*told);
  throw GroupError(message(what, number, reason));
}

std::string C10dGroup::message(const std::string& what, int64_t number, const std::string& reason) {
  const std::string transfer = fmt::format("transfer {} ({})", number, what);
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
    } else if (const std::string last = answer->substr(answer->find(' ') + 1); std::stoll(*answer) < number) {
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
