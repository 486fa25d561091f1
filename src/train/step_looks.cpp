#include "train/step_looks.h"

#include <ATen/ops/stack.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "blt/base/log.h"
#include "train/progress.h"
#include "train/shortened.h"

namespace blt {

using nlohmann::json;

StepLooks::StepLooks(const TrainConfig& config, const LossGuard& guard, Group& group,
                     std::function<std::string(const TextPlace&)> name_text)
    : config_(config), guard_(guard), group_(group), name_text_(std::move(name_text)) {}

void StepLooks::begin(int64_t step, const StepStats& stats) {
  const at::Tensor far_off = stats.spike.defined() ? stats.spike : at::zeros_like(stats.is_nonfinite);
  const at::Tensor flags = at::stack({stats.clip.found_inf != 0, stats.is_nonfinite, far_off});
  at::Tensor on_host = flags.to(at::kCPU, /*non_blocking=*/true);
  looks_.push_back({step, stats, std::exchange(batches_, {}), std::move(on_host),
                    DeviceMark(stats.is_nonfinite.device())});
}

std::string StepLooks::finish(size_t most_left, Progress& progress) {
  while (looks_.size() > most_left) {
    const Look look = std::move(looks_.front());
    looks_.pop_front();
    const Verdict verdict = judge(look, progress);
    if (!verdict.problem.empty()) return verdict.problem;
    progress.count(look.stats, verdict.taken);
  }
  return "";
}

void StepLooks::count_rest() {
  for (const Look& look : looks_) count(wait_for_flags(look).skipped);
  looks_.clear();
}

StepLooks::Flags StepLooks::wait_for_flags(const Look& look) {
  look.flags_are_there.wait();
  const bool* values = look.flags.const_data_ptr<bool>();
  return {.skipped = values[0], .nonfinite = values[1], .spike = values[2]};
}

void StepLooks::count(bool is_skipped) {
  skipped_ += is_skipped ? 1 : 0;
  skipped_in_row_ = is_skipped ? skipped_in_row_ + 1 : 0;
}

StepLooks::Verdict StepLooks::judge(const Look& look, Progress& progress) {
  const StepStats& stats = look.stats;
  const auto [skipped, nonfinite, is_far] = wait_for_flags(look);
  const bool spike = is_far && !nonfinite;  // what is no number is worse
  const std::string far = !spike ? ""
                                 : fmt::format(
                                       "the loss {:.4f} is far above those before (mean {:.4f}, deviation "
                                       "{:.4f}; train.spike)",
                                       stats.loss.item<double>(), guard_.mean(), guard_.deviation());
  count(skipped);
  if (!skipped) {
    if (spike && group_.is_first()) log_warning(fmt::format("step {}: {}", look.step, far));
    return {};
  }
  const std::string why =
      spike ? far
      : std::isfinite(stats.loss.item<double>())
          ? fmt::format("the gradient is not finite (the loss is {})", stats.loss.item<double>())
          : fmt::format("the loss is not finite ({})", stats.loss.item<double>());
  const std::vector<std::string> texts = texts_of(look);
  const std::string read = texts.empty() ? "" : fmt::format("; it read {}", shortened(texts));
  progress.log_skip(look.step, spike ? "spike" : "nonfinite", texts);
  if (spike ? config_.spike.action == OnSpike::kStop : config_.on_nonfinite == OnNonfinite::kStop)
    return {.taken = false,
            .problem = fmt::format(
                "step {}: {}{}; the model was left as it was before this step. Lower the learning rate or "
                "max_grad_norm, start from an earlier checkpoint, or set {} to skip",
                look.step, why, read, spike ? "spike.action" : "on_nonfinite")};
  if (group_.is_first()) log_warning(fmt::format("step {}: skipped: {}{}", look.step, why, read));
  if (config_.skip_limit > 0 && skipped_in_row_ >= config_.skip_limit)
    return {.taken = false,
            .problem = fmt::format(
                "step {}: {} steps in a row were skipped (train.skip_limit), in this one because {}{}; the "
                "model was left as it was before them. Start from an earlier checkpoint with a lower "
                "learning rate or max_grad_norm",
                look.step, skipped_in_row_, why, read)};
  return {.taken = false};
}

// The text of a step: of the batches whose own loss is not finite, where there are some, else of all; on all ranks. Looks at the
// device.
std::vector<std::string> StepLooks::texts_of(const Look& look) const {
  json all = json::array(), broken = json::array();
  for (const TrainedBatch& batch : look.batches) {
    const bool is_finite = std::isfinite(batch.loss.item<double>());
    for (const TextPlace& place : batch.places) {
      if (!name_text_ || place.source < 0) continue;
      all.push_back(name_text_(place));
      if (!is_finite) broken.push_back(all.back());
    }
  }
  std::vector<std::string> texts, broken_texts;
  for (const std::string& of_rank :
       gather(group_, json::array({all, broken}).dump(), "text of a step that was skipped")) {
    const json both = json::parse(of_rank);
    for (const json& text : both[0]) texts.push_back(text);
    for (const json& text : both[1]) broken_texts.push_back(text);
  }
  return broken_texts.empty() ? texts : broken_texts;
}

void StepLooks::save(StateWriter& out) const {
  out.put("skipped", skipped_);
  out.put("skipped_in_row", skipped_in_row_);
}

void StepLooks::load(const StateReader& in) {
  skipped_ = in.integer("skipped");
  skipped_in_row_ = in.integer("skipped_in_row");
}

}  // namespace blt
