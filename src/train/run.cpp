#include "blt/train/run.h"

#include <ATen/Context.h>
#include <fmt/format.h>

#include <memory>
#include <string>
#include <utility>

#include "blt/base/config_io.h"
#include "blt/base/error.h"
#include "blt/base/files.h"
#include "blt/base/log.h"
#include "blt/base/rng.h"
#include "blt/data/entropy_model_source.h"
#include "blt/data/loader.h"
#include "blt/io/model_dir.h"
#include "blt/model/report.h"
#include "train/checkpoint.h"

namespace blt {
namespace {

// Each model's initial parameters have a stream of their own: they do not depend on what was trained before.
void seed_parameters(int64_t seed, std::string_view model) {
  at::Generator generator = at::globalContext().defaultGenerator(at::kCPU);
  generator.set_current_seed(Rng(static_cast<uint64_t>(seed), model).next());
}

// What a run trains and what it needs for that; built from the config, or from the model directory that it starts from.
struct Models {
  EntropyModel entropy_model{nullptr};
  bool train_entropy_model = false;
  Blt blt{nullptr};
};

void write_settings(const std::filesystem::path& folder, const RunSettings& settings) {
  write_file(
      folder / "run.yaml",
      "# The run that made this model, whose shape and patching are in config.json. To go on from it:\n"
      "# blt_train run.yaml --init FOLDER output=…\n" +
          to_yaml(settings));
}

// The run as the entropy model's stage sees it.
RunSettings entropy_settings(const RunConfig& config) {
  const auto& stage = std::get<TrainedEntropyModel>(*config.entropy_model);
  RunSettings settings = config;
  settings.output /= "entropy_model";
  settings.data.sequence_bytes = stage.sequence_bytes.value_or(settings.data.sequence_bytes);
  settings.data.batch_bytes = stage.batch_bytes.value_or(settings.data.batch_bytes);
  settings.data.batch_patches.reset();
  settings.train = stage.train;
  return settings;
}

Models make_models(RunConfig& config, const std::optional<std::filesystem::path>& init) {
  Models models;
  if (init && read_model_kind(*init) == ModelKind::kBlt) {
    if (config.model || config.entropy_model)
      throw Error(fmt::format(
          "--init {}: a Byte Latent Transformer brings its shape and its entropy model; remove `model` and "
          "`entropy_model` from the config",
          init->string()));
    LoadedModel loaded = load_model(*init);
    models.blt = loaded.blt;
    models.entropy_model = loaded.entropy_model;
    config.model = loaded.config.blt;
    config.patching = loaded.config.patching;
    return models;
  }
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

Trainer::Outcome train_entropy_model(const RunSettings& settings, EntropyModel model) {
  const DataConfig& data = settings.data;
  log_info(fmt::format("entropy model\n{}",
                       model_table(*model, {.sequence_bytes = static_cast<double>(data.sequence_bytes)})));
  TrainerParts parts;
  parts.model = trainable(model);
  parts.train = make_byte_loader(data, Pass::kTraining);
  if (!data.validation.empty()) parts.valid = [data] { return make_byte_loader(data, Pass::kValidation); };
  parts.output = settings.output;
  parts.save = [&settings, model](const std::filesystem::path& folder) {
    save_entropy_model(folder, model);
    write_settings(folder, settings);
  };
  return Trainer(settings.train, std::move(parts)).run();
}

void calibrate_threshold(RunConfig& config, EntropySource& entropies) {
  auto* rule = std::get_if<EntropyPatching>(&config.patching.rule);
  if (rule == nullptr || rule->threshold) return;
  const Calibration result = calibrate_on(config.data, config.patching, entropies);
  rule->threshold = result.threshold;
  rule->mean_patch_bytes.reset();  // it was the question; a rule has the one or the other
  log_info(fmt::format("patching threshold {:.6g} nats: {:.3f} bytes a patch on {} of training text",
                       result.threshold, result.mean_patch_bytes,
                       format_bytes(static_cast<uint64_t>(result.count.bytes))));
}

Trainer::Outcome train_blt(RunConfig& config, const Models& models) {
  std::shared_ptr<EntropySource> entropies;
  if (const auto* rule = std::get_if<EntropyPatching>(&config.patching.rule)) {
    if (models.entropy_model.is_empty())
      throw Error("the patching rule reads entropies, but the model to start from has no entropy model");
    entropies = std::make_shared<EntropyModelSource>(
        models.entropy_model, EntropyModelSource::Options{.reset_at_newline = rule->reset_at_newline,
                                                          .batch_bytes = config.data.entropy_batch_bytes});
    calibrate_threshold(config, *entropies);
  }
  const auto sequence_bytes = static_cast<double>(config.data.sequence_bytes);
  log_info(fmt::format(
      "Byte Latent Transformer\n{}",
      model_table(*models.blt, models.entropy_model.is_empty() ? nullptr : models.entropy_model.get(),
                  {.sequence_bytes = sequence_bytes})));
  const std::shared_ptr<const Patcher> patcher = make_patcher(config.patching);
  const auto cache = std::make_shared<PatchCache>(config.data.patch_cache_mib << 20);
  TrainerParts parts;
  parts.model = trainable(models.blt);
  parts.train = make_patch_loader(config.data, Pass::kTraining, patcher, entropies, cache);
  if (!config.data.validation.empty())
    parts.valid = [=, data = config.data] {
      return make_patch_loader(data, Pass::kValidation, patcher, entropies, cache);
    };
  parts.output = config.output;
  parts.save = [&config, &models](const std::filesystem::path& folder) {
    save_model(folder, {.config = {.blt = *config.model, .entropy_model = {}, .patching = config.patching},
                        .blt = models.blt,
                        .entropy_model = models.entropy_model});
    write_settings(folder, config);
  };
  return Trainer(config.train, std::move(parts)).run();
}

}  // namespace

Trainer::Outcome run(RunConfig config, const std::optional<std::filesystem::path>& init) {
  require_fresh_output(config.output);
  require_fresh_output(config.output / "entropy_model");
  Models models = make_models(config, init);
  if (models.train_entropy_model) {
    const Trainer::Outcome outcome = train_entropy_model(entropy_settings(config), models.entropy_model);
    if (outcome == Trainer::Outcome::kStopped || models.blt.is_empty()) return outcome;
  }
  if (!models.entropy_model.is_empty()) freeze(*models.entropy_model);
  seed_parameters(config.seed, "training");  // dropout
  return train_blt(config, models);
}

}  // namespace blt
