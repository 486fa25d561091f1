#include "train/run_cost.h"

#include <fmt/format.h>

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

std::string cost_table(const RunConfig& config) {
  const ModelShapes shapes = model_shapes(config);
  const CostContext context = cost_context(config);
  const EntropyModelImpl* entropy_model =
      shapes.entropy_model.is_empty() ? nullptr : shapes.entropy_model.get();
  if (!shapes.blt.is_empty()) return model_table(*shapes.blt, entropy_model, context) + shapes.note;
  return entropy_model == nullptr ? shapes.note : model_table(*entropy_model, context);
}

}  // namespace blt
