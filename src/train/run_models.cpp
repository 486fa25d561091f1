#include "train/run_models.h"

#include <ATen/Context.h>
#include <fmt/format.h>

#include <string_view>
#include <variant>

#include "blt/base/config_io.h"
#include "blt/base/error.h"
#include "blt/base/log.h"
#include "blt/base/rng.h"
#include "blt/io/model_dir.h"
#include "train/same_run.h"

namespace blt {
namespace {

namespace fs = std::filesystem;

// Each model's initial parameters have a stream of their own: they do not depend on what was trained before.
void seed_parameters(int64_t seed, std::string_view model) {
  at::Generator generator = at::globalContext().defaultGenerator(at::kCPU);
  generator.set_current_seed(Rng(static_cast<uint64_t>(seed), model).next());
}

// Whether the config asks for other patches than those that a model was trained on: an entropy rule without a threshold leaves it to
// the model.
bool wants_other_patches(const PatchingConfig& config, const PatchingConfig& of_model) {
  const auto* rule = std::get_if<EntropyPatching>(&config.rule);
  return (rule == nullptr || rule->threshold) && to_yaml(config) != to_yaml(of_model);
}

// A Byte Latent Transformer to start from brings its shape, its entropy model and, unless the config asks for others, its patches.
Models models_from_blt(RunConfig& config, const fs::path& init) {
  if (config.model || config.entropy_model)
    throw Error(fmt::format(
        "--init {}: a Byte Latent Transformer brings its shape and its entropy model; remove `model` and "
        "`entropy_model` from the config, or say model=null entropy_model=null",
        init.string()));
  const LoadedModel loaded = load_model(init);
  config.model = loaded.config.blt;
  if (wants_other_patches(config.patching, loaded.config.patching))
    log_info("patching: the config's, not that of the model to start from");
  else
    config.patching = loaded.config.patching;
  return {.entropy_model = loaded.entropy_model, .train_entropy_model = false, .blt = loaded.blt};
}

}  // namespace

Models make_models(RunConfig& config, const std::optional<fs::path>& init) {
  if (init && read_model_kind(*init) == ModelKind::kBlt) return models_from_blt(config, *init);
  Models models;
  if (config.entropy_model) {
    if (const auto* given = std::get_if<GivenEntropyModel>(&*config.entropy_model)) {
      models.entropy_model = load_entropy_model(given->path);
    } else {
      auto& stage = std::get<TrainedEntropyModel>(*config.entropy_model);
      models.train_entropy_model = true;
      if (init) {
        models.entropy_model = load_entropy_model(*init);
        stage.model = models.entropy_model->config();
      } else {
        seed_parameters(config.seed, "entropy_model");
        models.entropy_model = EntropyModel(stage.model);
      }
    }
  }
  if (!init && !config.model && !models.train_entropy_model)
    throw Error(
        "there is neither a `model` nor an `entropy_model` of kind train in the config: nothing would be "
        "trained");
  if (init && !models.train_entropy_model)
    throw Error(fmt::format("--init {}: holds an entropy model, but this run trains none", init->string()));
  if (config.model) {
    seed_parameters(config.seed, "model");
    models.blt = Blt(*config.model);
  }
  return models;
}

void restore(const Checkpoints& checkpoints, RunConfig& config, const Models& models) {
  if (checkpoints.blt) {
    if (models.blt.is_empty())
      throw Error(fmt::format("{}: is of a Byte Latent Transformer, but the config has no `model`",
                              checkpoints.blt->string()));
    auto* rule = std::get_if<EntropyPatching>(&config.patching.rule);
    const ModelConfig stored = read_model_config(*checkpoints.blt);
    const auto* calibrated = std::get_if<EntropyPatching>(&stored.patching.rule);
    if (rule != nullptr && !rule->threshold && calibrated != nullptr)
      rule->set_threshold(calibrated->threshold);
    ModelConfig now{.blt = *config.model, .entropy_model = {}, .patching = config.patching};
    if (!models.entropy_model.is_empty()) now.entropy_model = models.entropy_model->config();
    require_same_run(*checkpoints.blt, config, now);
    load_weights(*checkpoints.blt, models.blt, models.entropy_model);
  } else if (checkpoints.entropy_model) {
    if (!models.train_entropy_model)
      throw Error(fmt::format("{}: is of an entropy model, but the config trains none",
                              checkpoints.entropy_model->string()));
    require_same_run(*checkpoints.entropy_model, entropy_model_settings(config),
                     models.entropy_model->config());
    load_weights(*checkpoints.entropy_model, Blt(nullptr), models.entropy_model);
  }
}

}  // namespace blt
