#include "train/run_cost.h"

#include <fmt/format.h>

#include <functional>
#include <string>
#include <variant>

#include "blt/io/model_dir.h"
#include "blt/model/parameters.h"
#include "blt/patching/calibrate.h"
#include "blt/train/run.h"

namespace blt {

CostContext cost_context(const RunConfig& config) {
  CostContext context{.sequence_bytes = static_cast<double>(config.data.sequence_bytes)};
  const auto& rule = config.patching.rule;
  if (const auto* entropy = std::get_if<EntropyPatching>(&rule))
    context.mean_patch_bytes = entropy->mean_patch_bytes.value_or(kDefaultMeanPatchBytes);
  if (const auto* fixed = std::get_if<StaticPatching>(&rule))
    context.mean_patch_bytes = static_cast<double>(fixed->patch_bytes);
  if (std::holds_alternative<BytePatching>(rule)) context.mean_patch_bytes = 1;
  return context;
}

ModelShapes model_shapes(const RunConfig& config) {
  const MetaParameters shapes_only;
  ModelShapes shapes;
  if (config.entropy_model) {
    if (const auto* stage = std::get_if<TrainedEntropyModel>(&*config.entropy_model)) {
      shapes.entropy_model = EntropyModel(stage->model);
    } else {
      const std::filesystem::path& path = std::get<GivenEntropyModel>(*config.entropy_model).path;
      if (std::filesystem::exists(path))
        shapes.entropy_model = EntropyModel(read_entropy_model_config(path));
      else  // a config can be looked at before what it builds on is trained
        shapes.note = fmt::format("without the entropy model: {} is not there\n", path.string());
    }
  }
  if (config.model) shapes.blt = Blt(*config.model);
  return shapes;
}

namespace {

// Of a model of shapes alone: the one that trains may have its parameters elsewhere (train/zero3.h).
template <class Module, class Config>
std::function<double(const TextCounts&)> training_flops_of(const Config& config, CostContext context) {
  const MetaParameters shapes_only;
  return [model = Module(config), context](const TextCounts& text) {
    if (text.bytes == 0) return 0.0;
    const auto bytes = static_cast<double>(text.bytes);
    CostContext own = context;
    if (text.patches > 0) own.mean_patch_bytes = bytes / static_cast<double>(text.patches);
    if (text.sequences > 0) own.sequence_bytes = bytes / static_cast<double>(text.sequences);
    return kTrainingOverForward * flops_per_byte(*model, own) * bytes;
  };
}

}  // namespace

std::function<double(const TextCounts&)> training_flops(const BltConfig& config, CostContext context) {
  return training_flops_of<Blt>(config, context);
}

std::function<double(const TextCounts&)> training_flops(const EntropyModelConfig& config,
                                                        CostContext context) {
  return training_flops_of<EntropyModel>(config, context);
}

std::string cost_table(const RunConfig& config) {
  const ModelShapes shapes = model_shapes(config);
  const CostContext context = cost_context(config);
  const EntropyModelImpl* entropy_model =
      shapes.entropy_model.is_empty() ? nullptr : shapes.entropy_model.get();
  if (!shapes.blt.is_empty()) return model_table(*shapes.blt, entropy_model, context) + shapes.note;
  return entropy_model == nullptr ? shapes.note : model_table(*entropy_model, context);
}

}  // namespace blt
