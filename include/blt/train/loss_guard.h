// Sees steps whose loss is far above those before it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string_view>
#include <utility>

#include "blt/base/config.h"
#include "blt/data/state.h"

namespace blt {

enum class OnSpike {
  kPass,
  kWarn,  // and take the step
  kSkip,  // the step changes nothing and counts as skipped
  kStop,  // it changes nothing, and the run ends with an error
};
template <>
struct EnumNames<OnSpike> {
  static constexpr std::pair<OnSpike, std::string_view> kValues[] = {{OnSpike::kPass, "ignore"},
                                                                     {OnSpike::kWarn, "warn"},
                                                                     {OnSpike::kSkip, "skip"},
                                                                     {OnSpike::kStop, "stop"}};
};

struct SpikeConfig {
  OnSpike action = OnSpike::kPass;
  double deviations = 6;
  int64_t window = 200;

  static void fields(auto& self, auto&& field) {
    field("action", self.action,
          "At a loss that is far above those of the steps before: ignore it; warn; skip the step; stop the "
          "run. "
          "Skipped and stopped steps change nothing.");
    field("deviations", self.deviations,
          "How many standard deviations above the running mean of the loss are far.", above(0));
    field("window", self.window,
          "Steps that the running mean and deviation look back; before so many there are no spikes.",
          at_least(2));
  }
};

// The running mean and variance of the losses, each step with the weight 1 / window (in the first steps, their plain mean). Steps that are
// not finite do not count, nor spikes that are skipped or stop the run. Everything stays on the loss's device: nobody waits for a step, and
// the same losses give the same answers, bit for bit. Not thread-safe.
class LossGuard {
 public:
  explicit LossGuard(SpikeConfig config) : config_(config) {}

  const SpikeConfig& config() const { return config_; }
  // loss: [] of a step. Whether it is a spike: [] bool. Counts it among those before the next one.
  at::Tensor see(const at::Tensor& loss);
  // Whether steps with spikes are masked.
  bool masks() const { return config_.action == OnSpike::kSkip || config_.action == OnSpike::kStop; }
  // Of the losses before; these wait for the device.
  double mean() const;
  double deviation() const;

  void save(StateWriter& out) const;
  void load(const StateReader& in);

 private:
  SpikeConfig config_;
  at::Tensor count_, mean_, variance_;  // [] float64; undefined before the first loss
};

}  // namespace blt
