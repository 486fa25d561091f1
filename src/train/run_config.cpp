#include "blt/train/run_config.h"

#include <string>
#include <variant>

#include "blt/model/device.h"

namespace blt {

void GivenEntropyModel::validate(Errors& errors) const {
  if (path.empty()) errors.add("path", "is missing: name the entropy model's directory");
}

void RunConfig::validate(Errors& errors) const {
  if (!is_device_name(device)) errors.add("device", kDeviceNames);
  if (output.empty())
    errors.add("output", "is missing: name a folder for the run, such as output=runs/first");
  if (data.sources.empty()) errors.add("data.sources", "is empty: name the text to train on");
  if (!model) return;
  if (patching.needs_entropies() && !entropy_model)
    errors.add(
        "entropy_model",
        "is missing: the patching rule reads entropies; give kind: directory or kind: train, or choose "
        "another patching.rule");
  if (std::holds_alternative<TopKPatching>(patching.rule))
    errors.add("patching.rule",
               "top_k looks ahead, so a model cannot be trained on it; it is for evaluation only");
}

RunSettings entropy_model_settings(const RunConfig& config) {
  const auto& stage = std::get<TrainedEntropyModel>(*config.entropy_model);
  RunSettings settings = config;
  settings.output /= "entropy_model";
  settings.data.sequence_bytes = stage.sequence_bytes.value_or(settings.data.sequence_bytes);
  if (stage.batch_bytes) settings.data.batch_bytes = stage.batch_bytes;
  settings.data.batch_patches.reset();
  settings.train = stage.train;
  return settings;
}

}  // namespace blt
