#include "blt/patching/patcher.h"

#include <c10/util/Exception.h>

#include "blt/patching/rules.h"
#include "patching/top_k.h"

namespace blt {

std::vector<int64_t> Patcher::starts(std::span<const int32_t> ids, std::span<const float> entropies) const {
  TORCH_CHECK(!ids.empty(), "Patcher::starts: a sequence has at least one id, the BOS");
  TORCH_CHECK(!needs_entropies() || entropies.size() == ids.size(), "Patcher::starts: ", ids.size(),
              " ids but ", entropies.size(), " entropies");
  return cut(ids, entropies);
}

std::vector<int64_t> Patcher::cut(std::span<const int32_t> ids, std::span<const float> entropies) const {
  PatchStream patches = stream();
  std::vector<int64_t> starts{0};
  for (size_t i = 0; i < ids.size(); ++i)
    if (patches.push(ids[i], entropies.empty() ? 0.f : entropies[i]))
      starts.push_back(static_cast<int64_t>(i) + 1);
  return starts;
}

namespace {

std::unique_ptr<Patcher> make(const StaticPatching& rule, std::optional<int64_t> max_patch_length) {
  return rule_patcher(StaticRule{rule.patch_bytes}, max_patch_length);
}
std::unique_ptr<Patcher> make(const BytePatching&, std::optional<int64_t> max_patch_length) {
  return rule_patcher(ByteRule{}, max_patch_length);
}
std::unique_ptr<Patcher> make(const SpacePatching&, std::optional<int64_t> max_patch_length) {
  return rule_patcher(SpaceRule{}, max_patch_length);
}
std::unique_ptr<Patcher> make(const TopKPatching& rule, std::optional<int64_t> max_patch_length) {
  return std::make_unique<TopKPatcher>(rule.patch_bytes, max_patch_length);
}
std::unique_ptr<Patcher> make(const EntropyPatching& rule, std::optional<int64_t> max_patch_length) {
  if (!rule.threshold)
    throw Error(
        "the entropy patching rule has no threshold: name one (patching.rule.threshold), or let it be "
        "calibrated on data");
  const auto threshold = static_cast<float>(*rule.threshold);
  if (rule.monotonic) return rule_patcher(MonotonicRule{threshold}, max_patch_length);
  if (rule.threshold_add)
    return rule_patcher(ThresholdAddRule{threshold, static_cast<float>(*rule.threshold_add)},
                        max_patch_length);
  return rule_patcher(ThresholdRule{threshold}, max_patch_length);
}

}  // namespace

std::unique_ptr<Patcher> make_patcher(const PatchingConfig& config) {
  return std::visit([&](const auto& rule) { return make(rule, config.max_patch_length); }, config.rule);
}

}  // namespace blt
