#include "blt/train/run.h"

#include <ATen/Context.h>
#include <fmt/format.h>

#include <chrono>
#include <memory>
#include <string>
#include <utility>

#include "blt/base/config_io.h"
#include "blt/base/error.h"
#include "blt/base/files.h"
#include "blt/base/log.h"
#include "blt/base/rng.h"
#include "blt/data/loader.h"
#include "blt/io/model_dir.h"
#include "blt/model/parameters.h"
#include "blt/model/report.h"
#include "train/checkpoint.h"

namespace blt {
namespace {

namespace fs = std::filesystem;

// Each model's initial parameters have a stream of their own: they do not depend on what was trained before.
void seed_parameters(int64_t seed, std::string_view model) {
  at::Generator generator = at::globalContext().defaultGenerator(at::kCPU);
  generator.set_current_seed(Rng(static_cast<uint64_t>(seed), model).next());
}

// A trainer's seed for the random numbers of its steps.
int64_t training_seed(int64_t seed, std::string_view model) {
  return static_cast<int64_t>(Rng(static_cast<uint64_t>(seed), fmt::format("{}.training", model)).next() >>
                              1);
}

// What a run trains and what it needs for that; built from the config, or from the model directory that it starts from.
struct Models {
  EntropyModel entropy_model{nullptr};
  bool train_entropy_model = false;
  Blt blt{nullptr};
};

void write_settings(const fs::path& folder, const RunSettings& settings, const std::string& comment) {
  write_file(folder / "run.yaml", comment + to_yaml(settings));
}

constexpr const char* kEntropyModelComment =
    "# The run that made this entropy model, whose shape is in config.json.\n";
constexpr const char* kModelComment =
    "# The run that made this model, whose shape and patching are in config.json. To go on from it:\n"
    "# blt_train run.yaml --init FOLDER output=…\n";

// Whether the config asks for other patches than those that a model was trained on: an entropy rule without a threshold leaves it to
// the model.
bool wants_other_patches(const PatchingConfig& config, const PatchingConfig& of_model) {
  const auto* rule = std::get_if<EntropyPatching>(&config.rule);
  return (rule == nullptr || rule->threshold) && to_yaml(config) != to_yaml(of_model);
}

// The run as the entropy model's stage sees it.
RunSettings entropy_settings(const RunConfig& config) {
  const auto& stage = std::get<TrainedEntropyModel>(*config.entropy_model);
  RunSettings settings = config;
  settings.output /= "entropy_model";
  settings.data.sequence_bytes = stage.sequence_bytes.value_or(settings.data.sequence_bytes);
  if (stage.batch_bytes) settings.data.batch_bytes = stage.batch_bytes;
  settings.data.batch_patches.reset();
  settings.train = stage.train;
  return settings;
}

Models make_models(RunConfig& config, const std::optional<fs::path>& init) {
  Models models;
  if (init && read_model_kind(*init) == ModelKind::kBlt) {
    if (config.model || config.entropy_model)
      throw Error(fmt::format(
          "--init {}: a Byte Latent Transformer brings its shape and its entropy model; remove `model` and "
          "`entropy_model` from the config, or say model=null entropy_model=null",
          init->string()));
    LoadedModel loaded = load_model(*init);
    models.blt = loaded.blt;
    models.entropy_model = loaded.entropy_model;
    config.model = loaded.config.blt;
    if (wants_other_patches(config.patching, loaded.config.patching))
      log_info("patching: the config's, not that of the model to start from");
    else
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

// Where a run goes on; empty where it starts.
struct Checkpoints {
  std::optional<fs::path> entropy_model, blt;  // of the model that is being trained
};

// A checkpoint that the user names may lie in the run's output, then it must be the newest, or elsewhere, then the output must be fresh.
void require_room_after(const fs::path& checkpoint, const fs::path& output) {
  std::error_code ignored;
  if (!fs::equivalent(checkpoint.parent_path(), output, ignored)) return require_fresh_output(output);
  const fs::path newest = list_checkpoints(output).front();
  if (checkpoint_step(newest) != checkpoint_step(checkpoint))
    throw Error(
        fmt::format("--resume {}: {} is newer; remove what comes after the checkpoint, or name another "
                    "folder with output=…",
                    checkpoint.string(), newest.string()));
}

Checkpoints find_checkpoints(const RunConfig& config, const std::optional<std::string>& resume) {
  const fs::path entropy_output = config.output / "entropy_model";
  Checkpoints found;
  if (!resume) {
    require_fresh_output(config.output);
    require_fresh_output(entropy_output);
  } else if (*resume == "auto") {
    found.blt = newest_whole_checkpoint(config.output);
    if (!found.blt) found.entropy_model = newest_whole_checkpoint(entropy_output);
    if (found.blt || found.entropy_model)
      log_info(
          fmt::format("going on from {}", found.blt.value_or(found.entropy_model.value_or("")).string()));
    else
      log_info(fmt::format("no checkpoint in {}: starting", config.output.string()));
  } else {
    std::error_code error;
    const fs::path checkpoint = fs::canonical(*resume, error);  // follows `latest`
    if (error) throw Error(fmt::format("--resume {}: {}", *resume, error.message()));
    check_checkpoint(checkpoint);
    if (read_model_kind(checkpoint) == ModelKind::kBlt) {
      require_room_after(checkpoint, config.output);
      found.blt = checkpoint;
    } else {
      require_fresh_output(config.output);
      require_room_after(checkpoint, entropy_output);
      found.entropy_model = checkpoint;
    }
  }
  return found;
}

// Puts the checkpoint's weights in place, and the patching that they were trained with.
void restore(const Checkpoints& checkpoints, RunConfig& config, const Models& models) {
  if (checkpoints.blt) {
    if (models.blt.is_empty())
      throw Error(fmt::format("{}: is of a Byte Latent Transformer, but the config has no `model`",
                              checkpoints.blt->string()));
    load_weights(*checkpoints.blt, models.blt, models.entropy_model);
    auto* rule = std::get_if<EntropyPatching>(&config.patching.rule);
    const ModelConfig stored = read_model_config(*checkpoints.blt);
    const auto* calibrated = std::get_if<EntropyPatching>(&stored.patching.rule);
    if (rule != nullptr && !rule->threshold && calibrated != nullptr) {
      rule->threshold = calibrated->threshold;
      rule->mean_patch_bytes.reset();
    }
  } else if (checkpoints.entropy_model) {
    if (!models.train_entropy_model)
      throw Error(fmt::format("{}: is of an entropy model, but the config trains none",
                              checkpoints.entropy_model->string()));
    load_weights(*checkpoints.entropy_model, Blt(nullptr), models.entropy_model);
  }
}

Trainer::Outcome train(const TrainConfig& config, TrainerParts parts,
                       const std::optional<fs::path>& checkpoint, bool check) {
  if (check) parts.output.clear();
  if (parts.valid) parts.valid();  // missing files are found now, not at the first validation
  Trainer trainer(config, std::move(parts));
  if (checkpoint) trainer.resume(*checkpoint);
  if (!check) return trainer.run();
  const auto start = std::chrono::steady_clock::now();
  const StepStats stats = trainer.train_step();
  if (stats.clip.found_inf.item<float>() != 0)
    throw Error("check: the loss or its gradient is not finite in the first step");
  log_info(fmt::format("check: a step of {} bytes, loss {:.4f}, took {:.2f} s", stats.bytes,
                       stats.loss.item<double>(),
                       std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count()));
  return Trainer::Outcome::kFinished;
}

Trainer::Outcome train_entropy_model(const RunSettings& settings, EntropyModel model,
                                     const std::optional<fs::path>& checkpoint, bool check) {
  const DataConfig& data = settings.data;
  const CostContext context{.sequence_bytes = static_cast<double>(data.sequence_bytes)};
  log_info(fmt::format("entropy model\n{}", model_table(*model, context)));
  TrainerParts parts;
  parts.model = trainable(model);
  const auto metrics = std::make_shared<LoaderMetrics>(data.sources);
  parts.train = make_byte_loader(data, Pass::kTraining, {.metrics = metrics});
  parts.metrics = [metrics] { return metrics->take(); };
  if (!data.validation.empty()) parts.valid = [data] { return make_byte_loader(data, Pass::kValidation); };
  parts.output = settings.output;
  parts.seed = training_seed(settings.seed, "entropy_model");
  parts.flops_per_byte = kTrainingOverForward * flops_per_byte(*model, context);
  parts.save = [&settings, model](const fs::path& folder) {
    save_entropy_model(folder, model);
    write_settings(folder, settings, kEntropyModelComment);
  };
  return train(settings.train, std::move(parts), checkpoint, check);
}

void calibrate_threshold(RunConfig& config, EntropySource& entropies, int64_t sample_bytes) {
  auto* rule = std::get_if<EntropyPatching>(&config.patching.rule);
  if (rule == nullptr || rule->threshold) return;
  log_info("finding the patching threshold on a sample of the training text");
  const Calibration result = calibrate_on(config.data, config.patching, entropies, sample_bytes);
  rule->threshold = result.threshold;
  rule->mean_patch_bytes.reset();  // it was the question; a rule has the one or the other
  log_info(fmt::format("patching threshold {:.6g} nats: {:.3f} bytes a patch on {} of training text",
                       result.threshold, result.mean_patch_bytes,
                       format_bytes(static_cast<uint64_t>(result.count.bytes))));
}

// What the FLOPs of a byte depend on. The patches' mean length is the wanted one, or what English text has by that rule.
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

Trainer::Outcome train_blt(RunConfig& config, const Models& models, const CostContext& context,
                           const std::optional<fs::path>& checkpoint, bool check) {
  const auto metrics = std::make_shared<LoaderMetrics>(config.data.sources);
  std::shared_ptr<EntropySource> entropies;
  if (const auto* rule = std::get_if<EntropyPatching>(&config.patching.rule)) {
    if (models.entropy_model.is_empty())
      throw Error("the patching rule reads entropies, but the model to start from has no entropy model");
    entropies = make_entropies(config.data, models.entropy_model, rule->reset_at_newline, metrics);
    calibrate_threshold(config, *entropies, check ? 1 << 14 : 1 << 18);
  }
  log_info(fmt::format(
      "Byte Latent Transformer\n{}",
      model_table(*models.blt, models.entropy_model.is_empty() ? nullptr : models.entropy_model.get(),
                  context)));
  const PatchSchedule schedule = make_patch_schedule(config.data, config.patching, entropies.get());
  TrainerParts parts;
  parts.model = trainable(models.blt);
  parts.train = make_patch_loader(config.data, Pass::kTraining, schedule, entropies, {.metrics = metrics});
  parts.metrics = [metrics] { return metrics->take(); };
  if (!config.data.validation.empty())
    parts.valid = [=, data = config.data] {
      return make_patch_loader(data, Pass::kValidation, schedule, entropies);
    };
  parts.output = config.output;
  parts.seed = training_seed(config.seed, "model");
  parts.flops_per_byte = kTrainingOverForward * flops_per_byte(*models.blt, context);
  parts.save = [&config, &models](const fs::path& folder) {
    save_model(folder, {.config = {.blt = *config.model, .entropy_model = {}, .patching = config.patching},
                        .blt = models.blt,
                        .entropy_model = models.entropy_model});
    write_settings(folder, config, kModelComment);
  };
  return train(config.train, std::move(parts), checkpoint, check);
}

}  // namespace

Trainer::Outcome run(RunConfig config, const RunOptions& options) {
  const Checkpoints checkpoints = find_checkpoints(config, options.resume);
  Models models = make_models(config, options.init);
  const CostContext context = cost_context(config);  // before the wanted mean length becomes a threshold
  restore(checkpoints, config, models);
  if (models.train_entropy_model && !checkpoints.blt) {
    const Trainer::Outcome outcome = train_entropy_model(entropy_settings(config), models.entropy_model,
                                                         checkpoints.entropy_model, options.check);
    if (outcome == Trainer::Outcome::kStopped) return outcome;
  }
  if (models.blt.is_empty()) return Trainer::Outcome::kFinished;
  if (!models.entropy_model.is_empty()) freeze(*models.entropy_model);
  return train_blt(config, models, context, checkpoints.blt, options.check);
}

std::string cost_table(const RunConfig& config) {
  const MetaParameters shapes_only;
  const CostContext context = cost_context(config);
  EntropyModel entropy_model{nullptr};
  if (config.entropy_model)
    if (const auto* stage = std::get_if<TrainedEntropyModel>(&*config.entropy_model))
      entropy_model = EntropyModel(stage->model);
  if (config.model)
    return model_table(*Blt(*config.model), entropy_model.is_empty() ? nullptr : entropy_model.get(),
                       context);
  return entropy_model.is_empty() ? "" : model_table(*entropy_model, context);
}

}  // namespace blt
