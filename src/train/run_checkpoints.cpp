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
#include "train/in_time.h"
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
  std::string late =
      {};  // who does what for it still, where the time is over; empty: nobody, and the rest is known
};

RunCheckpoints::RunCheckpoints(const TrainConfig& config, std::filesystem::path output, Group& group,
                               double timeout_s)
    : config_(config),
      output_(std::move(output)),
      group_(group),
      timeout_s_(timeout_s),
      writer_(Seconds(config.save_timeout_s)) {}

KeepPolicy RunCheckpoints::keep_policy(int64_t best_step) const {
  return {.newest = config_.keep_checkpoints, .every = config_.keep_every, .best_step = best_step};
}

void RunCheckpoints::resumed_from(const std::filesystem::path& checkpoint, int64_t step) {
  newest_whole_ = checkpoint;
  // A checkpoint from elsewhere is not one of this run's.
  std::error_code ignored;
  if (std::filesystem::equivalent(checkpoint.parent_path(), output_, ignored)) saved_step_ = step;
}

bool RunCheckpoints::begin(int64_t step, int64_t best_step, const std::function<CheckpointContent()>& copy) {
  const auto start = std::chrono::steady_clock::now();
  const auto [before, ignored, late] = wait_for_all(step, Seconds(config_.save_patience_s));
  if (before) report(*before, step);  // while there are no more copies
  left_out_ = !late.empty();
  if (left_out_) {
    ++num_failed_;
    if (group_.is_first())
      log_warning(fmt::format(
          "step {}: the checkpoint is left out, since that of step {} has been under way for {:.0f} s ({}); "
          "the training goes on, and the next one is due at step {}",
          step, *saved_step_, seconds_since(begun_), late, next_due(step)));
    return false;
  }
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
      job.directory = make_folder(step);
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
  unsettled_ = output_ / checkpoint_name(step);
  begun_ = std::chrono::steady_clock::now();
  if (failure.empty())
    writer_.start(std::move(job));
  else
    writer_.fail(step, failure);
  times_.stop_s = seconds_since(start);
  return true;
}

// On a thread of its own: this one does not hang with the disk.
std::shared_ptr<AtomicDirectory> RunCheckpoints::make_folder(int64_t step) {
  const std::filesystem::path path = output_ / checkpoint_name(step);
  const double longest = std::min(std::max(config_.save_patience_s, 1.0), timeout_s_ / 2);
  folder_ = aside([path] { return std::make_shared<AtomicDirectory>(path); });
  if (is_there(folder_, to_milliseconds(longest))) return folder_.get();
  throw Error(fmt::format("{}: the disk has not answered within {:g} s", path.string(), longest));
}

bool RunCheckpoints::still_makes_folder() {
  if (folder_.valid() && is_there(folder_, std::chrono::milliseconds(0)))
    folder_ = {};  // nobody needs it now
  return folder_.valid();
}

std::optional<SavedCheckpoint> RunCheckpoints::wait_for_own_part(Seconds longest) {
  std::optional<SavedCheckpoint> saved = writer_.wait(longest);
  if (!saved) return saved;
  if (!saved->is_there) failure_ = group_.is_first() ? saved->failure : saved->unheard;
  if (group_.is_first()) settle(saved->is_there);
  return saved;
}

// The other ranks may have looked for it when somebody had moved the folder.
void RunCheckpoints::settle(bool is_there) {
  const std::filesystem::path settled = std::exchange(unsettled_, {});
  if (settled.empty()) return;
  if (is_there)
    newest_whole_ = settled;
  else
    ++num_failed_;
}

bool RunCheckpoints::has_news() {
  news_ = wait_for_own_part(std::chrono::seconds(0));
  return news_.has_value();
}

void RunCheckpoints::report(int64_t step) {
  if (const auto saved = std::exchange(news_, std::nullopt)) report(*saved, step);
}

// However long a disk takes, no transfer waits for it: the ranks ask each other again and again, until rank 0 says that the time is over. Who waits
// for a rank that has failed, and could not leave a mark that says so, learns it here.
RunCheckpoints::Written RunCheckpoints::wait_for_all(int64_t step, Seconds longest) {
  using Clock = std::chrono::steady_clock;
  const Seconds limit(timeout_s_);
  const auto start = Clock::now();
  Seconds look(0);  // first, what is known; then rarer and rarer
  Written written;
  for (auto warned = start;; look = std::min(limit / 4, 2 * look + Seconds(0.05))) {
    const Seconds left = std::max<Seconds>(Seconds(0), longest - (Clock::now() - start));
    if (auto own = wait_for_own_part(std::min(look, left))) written.own = std::move(own);
    const bool makes_folder = still_makes_folder();
    const json own_word = {
        {"busy", writer_.is_busy() || makes_folder},
        {"does",
         makes_folder ? "making " + (output_ / checkpoint_name(*saved_step_)).string() : writer_.doing()},
        {"failure", failure_},
        {"is_over", Clock::now() - start >= longest}};
    std::vector<int64_t> busy;
    std::vector<std::string> failures, doings;
    bool is_over = false;
    const std::vector<std::string> words =
        gather(group_, own_word.dump(), "whether the last checkpoint is there");
    for (int64_t r = 0; r < group_.size(); ++r) {
      const json word = json::parse(words[static_cast<size_t>(r)]);
      const std::string failure = word["failure"], does = word["does"];
      const std::string rank = group_.size() > 1 ? fmt::format("rank {}: ", r) : "";
      if (word["busy"]) busy.push_back(r);
      if (!failure.empty()) failures.push_back(rank + failure);
      if (!does.empty()) doings.push_back(rank + does);
      if (r > 0) continue;
      written.failure = failure;
      is_over = word["is_over"];
    }
    if (busy.empty()) {
      // What rank 0 does not know. Where it failed by itself, others may have found no folder any more.
      std::erase_if(failures, [&](const std::string& text) {
        return text.starts_with("rank 0: ") || written.failure.find(text) != text.npos;
      });
      if (group_.is_first() && written.failure.starts_with("rank ") && !failures.empty())
        log_warning(fmt::format("the last checkpoint: {}", shortened(failures)));
      failure_.clear();
      settle(written.failure.empty());
      return written;
    }
    if (is_over) {
      written.late = doings.empty() ? fmt::format("rank {}", fmt::join(busy, ", ")) : shortened(doings);
      return written;
    }
    if (!failures.empty() || busy[0] > 0) writer_.stop_waiting(failures.empty() ? "" : failures[0]);
    if (group_.is_first() && seconds_since(warned) > timeout_s_) {
      log_warning(
          fmt::format("step {}: the training waits for rank {}, which still writes the last checkpoint", step,
                      fmt::join(busy, ", ")));
      warned = Clock::now();
    }
  }
}

int64_t RunCheckpoints::next_due(int64_t step) const {
  const int64_t every = config_.checkpoint_every;
  return std::max(step, every > 0 ? std::min((step / every + 1) * every, config_.steps) : config_.steps);
}

void RunCheckpoints::report(const SavedCheckpoint& saved, int64_t step) const {
  if (!group_.is_first()) return;
  if (!saved.is_there) {
    log_warning(fmt::format("{}; the training goes on, and the next one is due at step {}",
                            not_saved(saved.step, saved.failure, newest_whole_), next_due(step)));
    return;
  }
  log_info(fmt::format("saved {}", saved.path.string()));
  if (!saved.failure.empty()) log_warning(saved.failure);
}

void RunCheckpoints::finish(int64_t step, const std::function<void()>& again) {
  for (int64_t tries = 0;;) {
    const auto [own, failure, late] = wait_for_all(step, Seconds(config_.save_timeout_s));
    if (!late.empty()) {
      writer_.abandon();
      throw Error(
          not_saved(*saved_step_,
                    fmt::format("it has been under way for {:.0f} s ({}), and the run waits no longer "
                                "than {:g} s for it (train.save_timeout_s)",
                                seconds_since(begun_), late, config_.save_timeout_s),
                    newest_whole_));
    }
    if (failure.empty()) {
      if (own) report(*own, step);
      if (!left_out_) return;
      again();
      continue;
    }
    const std::string message = not_saved(step, failure, newest_whole_);
    if (++tries >= config_.last_save_tries) throw Error(message);
    const std::chrono::seconds pause(int64_t{1} << (tries - 1));
    if (group_.is_first()) log_warning(fmt::format("{}; it is tried again in {} s", message, pause.count()));
    std::this_thread::sleep_for(pause);
    saved_step_.reset();
    again();
  }
}

}  // namespace blt
