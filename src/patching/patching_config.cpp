#include "blt/patching/patching_config.h"

namespace blt {

void EntropyPatching::validate(Errors& errors) const {
  if (threshold && mean_patch_bytes)
    errors.add("mean_patch_bytes",
               "is what an absent threshold is calibrated for: give it or the threshold, not both");
  if (monotonic && threshold_add)
    errors.add("threshold_add",
               "belongs to the rule that compares entropies; with monotonic, the threshold is the rise");
}

bool PatchingConfig::needs_entropies() const {
  return std::holds_alternative<EntropyPatching>(rule) || std::holds_alternative<TopKPatching>(rule);
}

bool PatchingConfig::resets_at_newline() const {
  const auto* entropy = std::get_if<EntropyPatching>(&rule);
  return entropy != nullptr && entropy->reset_at_newline;
}

}  // namespace blt
