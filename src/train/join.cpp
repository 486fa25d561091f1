#include <c10/util/Logging.h>
#include <c10/util/env.h>
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <thread>
#include <utility>

#include "blt/base/error.h"
#include "blt/base/signals.h"
#include "blt/base/terminal.h"
#include "blt/base/tool.h"
#include "blt/train/rendezvous.h"
#include "train/c10d_group.h"
#include "train/first_line.h"
#include "train/gloo.h"
#include "train/in_time.h"
#include "train/nccl.h"
#include "train/rank_store.h"
#include "train/tcp_store.h"

namespace blt {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

constexpr const char* kCame = "came";
// What c10d bounds itself ends by then.
constexpr milliseconds kMargin(5000);

std::unique_ptr<RankStore> reach_store(const RankPlace& place, double timeout_s) {
  const auto connect = [=] {
    return tcp_store({.host = place.host,
                      .port = place.port,
                      .is_server = place.keeps_store(),
                      .timeout = to_milliseconds(timeout_s)});
  };
  try {
    const auto store = in_time(connect, to_milliseconds(timeout_s) + kMargin);
    if (store) return std::make_unique<RankStore>(store_of_start(*store, place.job, place.attempt), place);
  } catch (const std::exception& e) {
    if (place.keeps_store())
      throw Error(
          fmt::format("rank 0 of {}: cannot open port {} for the other ranks; name a free one with "
                      "MASTER_PORT ({})",
                      place.ranks, place.port, first_line(e)));
    throw Error(
        fmt::format("rank {} of {}: {}:{} cannot be reached within {:g} s (parallel.start_timeout_s): is "
                    "rank 0 running there, and is the port open?",
                    place.rank, place.ranks, place.host, place.port, timeout_s));
  }
  throw Error(fmt::format("rank {} of {}: {} (it had {:g} s: parallel.start_timeout_s)", place.rank,
                          place.ranks, describe(Loss::kSilent, place), timeout_s));
}

// All ranks see it, or none but this one: one says it.
[[noreturn]] void fail(RankStore& store, const std::string& message) {
  if (store.claim_failure(message)) throw Error(message);
  throw FailureTold(message);
}

// Every rank says that it is there, and waits for the others. c10d's store looks up the name of every rank that connects, and answers nobody
// meanwhile: where a name server does not answer, that takes seconds for each of them.
void meet(RankStore& store, double timeout_s) {
  // Asked less and less often: of a thousand ranks all ask one store.
  milliseconds poll_interval(20);
  constexpr milliseconds kLongestPollInterval(1000);
  const RankPlace& place = store.place();
  store.open_spare();
  store.announce(kCame);
  const auto end = Clock::now() + to_milliseconds(timeout_s);
  const auto left = [&] { return std::chrono::duration_cast<milliseconds>(end - Clock::now()); };
  const auto loss = [&] { return fmt::format("rank {} of {}: {}", place.rank, place.ranks, store.loss()); };
  while (true) {
    const std::optional<bool> all = store.all_announced(kCame, left());
    if (!all) fail(store, loss());
    if (*all) return;
    store.find_spare();  // for a loss before all are there
    if (const auto told = store.failure({})) throw FailureTold(*told);
    if (left().count() <= 0) break;
    std::this_thread::sleep_for(std::clamp(left(), milliseconds(1), poll_interval));
    poll_interval = std::min(poll_interval * 3 / 2, kLongestPollInterval);
  }
  const auto missing = store.not_announced(kCame);
  if (!missing) fail(store, loss());
  if (missing->empty()) return;  // at the last moment
  std::vector<int64_t> came;
  for (int64_t r = 0; r < place.ranks; ++r)
    if (!std::binary_search(missing->begin(), missing->end(), r)) came.push_back(r);
  const std::string message = fmt::format(
      "of {} ranks, {} did not come to {}:{} within {:g} s (parallel.start_timeout_s); there are: {}",
      place.ranks, list_ranks(*missing), place.host, place.port, timeout_s, list_ranks(came));
  fail(store, message);
}

// Gloo finds out in the store where the others are, and waits without an end for a store that does not answer.
struct Connected {
  c10::intrusive_ptr<c10d::Backend> gloo;
  c10::intrusive_ptr<c10d::Store> store;  // by a connection of its own: Gloo's questions may take long
};
Connected connect(RankStore& store, const GroupTimeouts& timeouts) {
  constexpr milliseconds kLook(500);
  auto connected = aside([meeting = store.store(), place = store.place(), timeouts]() -> Connected {
    const c10::intrusive_ptr<c10d::Store> own = meeting->clone();
    return {.gloo = make_gloo(own, place, to_milliseconds(timeouts.transfer_s)), .store = own};
  });
  const auto end = Clock::now() + to_milliseconds(timeouts.start_s) + kMargin;
  while (!is_there(connected, kLook)) {
    if (const auto told = store.failure({})) throw FailureTold(*told);
    if (Clock::now() < end) continue;
    const std::string late = fmt::format(
        "no connection to all other ranks within {:g} s (parallel.start_timeout_s)", timeouts.start_s);
    fail(store, store.all_announced(kCame) ? late : fmt::format("{}; {}", store.loss(), late));
  }
  try {
    return connected.get();
  } catch (const std::exception& e) {
    fail(store, e.what());
  }
}

// As a tool whose rank has failed ends.
void end_process(const std::string& message) {
  OpenLine::end();
  if (!message.empty()) fmt::print(stderr, "{}: {}\n", program_invocation_short_name, message);
  std::_Exit(kFailed);
}

}  // namespace

std::shared_ptr<Group> join(const RankPlace& place, const GroupTimeouts& timeouts) {
  FLAGS_caffe2_log_level = 3;  // c10d's own messages, with stacks, beside those that are thrown here
  // Nor does its watchdog of NCCL's transfers end the process: ours names the rank and the transfer.
  c10::utils::set_env("TORCH_NCCL_RETHROW_CUDA_ERRORS", "0", /*overwrite=*/false);
  // Nor does it write down every transfer with a stack, which ours needs not and which is not safe where ranks are threads.
  c10::utils::set_env("TORCH_FR_BUFFER_SIZE", "0", /*overwrite=*/false);
  const StopAtOnce starting(place.rank == 0 ? "stopped before all ranks were there" : "");
  std::unique_ptr<RankStore> store = reach_store(place, timeouts.start_s);
  meet(*store, timeouts.start_s);
  store->find_spare();
  const Connected connected = connect(*store, timeouts);
  const auto nccl = [meeting = store->store(), place, timeout = to_milliseconds(timeouts.transfer_s)] {
    const auto own = in_time([meeting] { return meeting->clone(); }, timeout);
    if (!own) throw Error(describe(Loss::kSilent, place));
    return make_nccl(*own, place, timeout);
  };
  std::map<c10::DeviceType, C10dGroup::Transport> transports;
  transports[c10::kCPU] = {.make = [gloo = connected.gloo] { return gloo; }};
  transports[c10::kCUDA] = {.make = nccl, .is_of_device = true};
  return std::make_shared<C10dGroup>(std::move(transports), std::move(store), connected.store,
                                     timeouts.transfer_s, end_process);
}

bool claim_failure(const RankPlace& place, const std::string& message) {
  constexpr double kLongest_s = 5;  // until whoever keeps the store is there, too
  FLAGS_caffe2_log_level = 3;
  try {
    return reach_store(place, kLongest_s)->claim_failure(message);
  } catch (const Error&) {
    return true;
  }
}

}  // namespace blt
