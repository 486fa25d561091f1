#include "train/run_checkpoints.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>
#include <utility>

#include "base/seconds_since.h"
#include "blt/base/error.h"
#include "blt/base/files.h"
#include "blt/base/log.h"
#include "train/checkpoint.h"
#include "train/shortened.h"

namespace blt {

using nlohmann::json;

namespace {

// newest: the newest whole checkpoint, empty where there is none.
std::string not_saved(int64_t step, const std::string& why, const std::filesystem::path& newest) {
  std::error_code ignored;
  return fmt::format("step {}: the checkpoint was not saved: {}; {}", step, why,
                     newest.empty() ? "there is no earlier one"
                     : std::filesystem::exists(newest, ignored)
                         ? fmt::format("the last whole one is {}", newest.string())
                         : fmt::format("the last whole one, {}, is not there now", newest.string()));
}

}  // namespace

struct RunCheckpoints::Written {
  std::optional<SavedCheckpoint> own;  // where this rank has not been told before
  std::string failure;                 // of the checkpoint: what rank 0 says; empty: it is there
};

RunCheckpoints::RunCheckpoints(const TrainConfig& config, std::filesystem::path output, Group& group,
                               double timeout_s)
    : config_(config), output_(std::move(output)), group_(group), timeout_s_(timeout_s) {}

KeepPolicy RunCheckpoints::keep_policy(int64_t best_step) const {
  return {.newest = config_.keep_checkpoints, .every = config_.keep_every, .best_step = best_step};
}

void RunCheckpoints::resumed_from(const std::filesystem::path& checkpoint, int64_t step) {
  newest_whole_ = checkpoint;
  // A checkpoint from elsewhere is not one of this run's.
  std::error_code ignored;
  if (std::filesystem::equivalent(checkpoint.parent_path(), output_, ignored)) saved_step_ = step;
}

void RunCheckpoints::begin(int64_t step, int64_t best_step, const std::function<CheckpointContent()>& copy) {
  const auto start = std::chrono::steady_clock::now();
  if (const auto saved = wait_for_all(step).own) report(*saved, step);  // before there are more copies
  times_ = {.wait_s = seconds_since(start)};
  const auto copying = std::chrono::steady_clock::now();
  CheckpointContent content = copy();
  times_.copy_s = seconds_since(copying);

  CheckpointJob job{.output = output_,
                    .step = step,
                    .rank = group_.rank(),
                    .ranks = group_.size(),
                    .timeout_s = timeout_s_,
                    .shares = std::move(content.shares),
                    .copied = std::move(content.copied),
                    .has_ema = content.has_ema,
                    .keep = keep_policy(best_step)};
  // What all ranks have to know of each: its place in the data, its tensors, and, of the first, the folder or why there is none.
  std::string failure;
  if (group_.is_first()) try {
      job.directory = std::make_shared<AtomicDirectory>(output_ / checkpoint_name(step));
      job.temporary = job.directory->path().filename().string();
    } catch (const Error& e) {
      failure = e.what();
    }
  const json own = {content.place, describe(job.shares, group_.rank()), job.temporary, failure};
  std::vector<std::string> places;
  for (const std::string& text : gather(group_, own.dump(), "parts of a checkpoint")) {
    const json of_rank = json::parse(text);
    places.push_back(of_rank[0]);
    job.descriptions.push_back(of_rank[1]);
    if (places.size() > 1) continue;
    job.temporary = of_rank[2];
    failure = of_rank[3];
  }
  if (group_.is_first())
    job.write_rest = [write_rest = std::move(content.write_rest), places = std::move(places)](
                         const std::filesystem::path& folder) { write_rest(folder, places); };
  saved_step_ = step;
  if (failure.empty())
    writer_.start(std::move(job));
  else
    writer_.fail(step, failure);
  times_.stop_s = seconds_since(start);
}

std::optional<SavedCheckpoint> RunCheckpoints::wait_for_own_part(std::chrono::duration<double> longest) {
  std::optional<SavedCheckpoint> saved = writer_.wait(longest);
  if (!saved) return saved;
  if (saved->is_there) {
    newest_whole_ = saved->path;
  } else {
    ++num_failed_;
    failure_ = group_.is_first() ? saved->failure : saved->unheard;
  }
  return saved;
}

bool RunCheckpoints::has_news() {
  news_ = wait_for_own_part(std::chrono::seconds(0));
  return news_.has_value();
}

void RunCheckpoints::report(int64_t step) {
  if (const auto saved = std::exchange(news_, std::nullopt)) report(*saved, step);
}

// However long a disk takes, no transfer waits for it: the ranks ask each other again and again. Who waits for a rank that has failed, and could
// not leave a mark that says so, learns it here.
RunCheckpoints::Written RunCheckpoints::wait_for_all(int64_t step) {
  constexpr char kBusy = 'b', kDone = 'd';
  const std::chrono::duration<double> limit(timeout_s_);
  std::chrono::duration<double> longest(0);  // first, what is known; then rarer and rarer
  Written written;
  for (auto warned = std::chrono::steady_clock::now();;
       longest = std::min(limit / 4, 2 * longest + std::chrono::duration<double>(0.05))) {
    if (auto own = wait_for_own_part(longest)) written.own = std::move(own);
    const std::vector<std::string> words = gather(group_, (writer_.is_busy() ? kBusy : kDone) + failure_,
                                                  "whether the last checkpoint is there");
    std::vector<int64_t> busy;
    std::vector<std::string> failures;
    for (int64_t r = 0; r < group_.size(); ++r) {
      const std::string& word = words[static_cast<size_t>(r)];
      if (word[0] == kBusy) busy.push_back(r);
      if (word.size() > 1) failures.push_back(fmt::format("rank {}: {}", r, word.substr(1)));
    }
    if (busy.empty()) {
      written.failure = words[0].substr(1);
      // What rank 0 does not know. Where it failed by itself, others may have found no folder any more.
      std::erase_if(failures, [&](const std::string& text) {
        return text.starts_with("rank 0: ") || written.failure.find(text) != text.npos;
      });
      if (group_.is_first() && written.failure.starts_with("rank ") && !failures.empty())
        log_warning(fmt::format("the last checkpoint: {}", shortened(failures)));
      failure_.clear();
      return written;
    }
    if (!failures.empty() || busy[0] > 0) writer_.stop_waiting(failures.empty() ? "" : failures[0]);
    if (group_.is_first() && std::chrono::steady_clock::now() - warned > limit) {
      log_warning(
          fmt::format("step {}: the training waits for rank {}, which still writes the last checkpoint", step,
                      fmt::join(busy, ", ")));
      warned = std::chrono::steady_clock::now();
    }
  }
}

void RunCheckpoints::report(const SavedCheckpoint& saved, int64_t step) const {
  if (!group_.is_first()) return;
  if (!saved.is_there) {
    const int64_t every = config_.checkpoint_every;
    const int64_t next = every > 0 ? std::min((step / every + 1) * every, config_.steps) : config_.steps;
    log_warning(fmt::format("{}; the training goes on, and the next one is due at step {}",
                            not_saved(saved.step, saved.failure, newest_whole_), std::max(next, step)));
    return;
  }
  log_info(fmt::format("saved {}", saved.path.string()));
  if (!saved.failure.empty()) log_warning(saved.failure);
}

void RunCheckpoints::finish(int64_t step, const std::function<void()>& again) {
  for (int64_t tries = 1;; ++tries) {
    const auto [own, failure] = wait_for_all(step);
    if (failure.empty()) {
      if (own) report(*own, step);
      return;
    }
    const std::string message = not_saved(step, failure, newest_whole_);
    if (tries >= config_.last_save_tries) throw Error(message);
    const std::chrono::seconds pause(int64_t{1} << (tries - 1));
    if (group_.is_first()) log_warning(fmt::format("{}; it is tried again in {} s", message, pause.count()));
    std::this_thread::sleep_for(pause);
    saved_step_.reset();
    again();
  }
}

}  // namespace blt
