#include "blt/train/run_config.h"

#include <string>
#include <variant>

#include "blt/data/filled_batch.h"
#include "blt/model/device.h"

namespace blt {
namespace {

bool drops_out(const BltConfig& model) {
  return model.ngram.dropout > 0 || model.local_encoder.dropout > 0 || model.latent_transformer.dropout > 0 ||
         model.local_decoder.dropout > 0;
}
bool drops_out(const EntropyModelConfig& model) { return model.dropout > 0 || model.ngram.dropout > 0; }

void check_graph(const RunConfig& config, const TrainConfig& train, bool drops_out, const std::string& key,
                 Errors& errors) {
  if (!train.cuda_graph) return;
  if (config.device == "cpu") errors.add(key, "is for GPUs: give device: cuda, or set it to false");
  if (!config.data.batch_sequences)
    errors.add(key, "repeats batches of one size: give data.batch_sequences, or set it to false");
  if (drops_out)
    errors.add(key, "does not go with dropout, which takes another seed in every step: set it to false");
}

}  // namespace

void GivenEntropyModel::validate(Errors& errors) const {
  if (path.empty()) errors.add("path", "is missing: name the entropy model's directory");
}

void RunConfig::validate(Errors& errors) const {
  if (!is_device_name(device)) errors.add("device", kDeviceNames);
  if (output.empty())
    errors.add("output", "is missing: name a folder for the run, such as output=runs/first");
  if (data.sources.empty()) errors.add("data.sources", "is empty: name the text to train on");
  check_graph(*this, train, model && drops_out(*model), "train.cuda_graph", errors);
  if (entropy_model)
    if (const auto* stage = std::get_if<TrainedEntropyModel>(&*entropy_model);
        stage && stage->train.cuda_graph) {
      const std::string key = "entropy_model.train.cuda_graph";
      check_graph(*this, stage->train, drops_out(stage->model), key, errors);
      const std::string problem =
          data.batch_sequences ? entropy_model_settings(*this).data.filled_sizes(/*patched=*/false).problem()
                               : "";
      if (!problem.empty())
        errors.add(key, "filler cannot make up all batches of data.batch_sequences: " + problem);
    }
  if (!model) return;
  if (data.batch_sequences && !data.batch_patches)
    errors.add("data.batch_sequences", DataConfig::kNeedsPatches);
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
  if (!settings.train.cuda_graph) settings.data.batch_sequences.reset();
  return settings;
}

}  // namespace blt
