#include "blt/train/run.h"

#include <fmt/format.h>

#include <chrono>
#include <exception>
#include <memory>
#include <string>
#include <utility>

#include "base/seconds_since.h"
#include "blt/base/config_io.h"
#include "blt/base/error.h"
#include "blt/base/files.h"
#include "blt/base/log.h"
#include "blt/base/rng.h"
#include "blt/base/signals.h"
#include "blt/data/documents.h"
#include "blt/data/loader.h"
#include "blt/io/model_content.h"
#include "blt/io/model_dir.h"
#include "blt/model/device.h"
#include "blt/model/report.h"
#include "blt/patching/calibrate.h"
#include "blt/train/rendezvous.h"
#include "train/run_cost.h"
#include "train/run_lock.h"
#include "train/run_models.h"
#include "train/run_start.h"
#include "train/same_run.h"

namespace blt {
namespace {

namespace fs = std::filesystem;

constexpr const char* kStoppedBeforeAStep =
    "stopped before a step was trained: nothing is lost; go on with --resume auto";
constexpr const char* kStoppedInCheck = "stopped: nothing was written";

constexpr const char* kEntropyModelComment =
    "# The run that made this entropy model, whose shape is in config.json.\n";
constexpr const char* kModelComment =
    "# The run that made this model, whose shape and patching are in config.json. To go on from it:\n"
    "# blt_train run.yaml --init FOLDER output=…\n";

ModelToSave to_save(ModelContent content, const RunSettings& settings, const std::string& comment) {
  return {
      .tensors = std::move(content.tensors),
      .write_rest =
          [config = std::move(content.config), settings, comment](const fs::path& folder) {
            write_file(folder / "config.json", config);
            write_file(folder / "run.yaml", comment + to_yaml(settings));
          },
      .write_rest_of_average = [config = std::move(content.float32_config)](
                                   const fs::path& folder) { write_file(folder / "config.json", config); }};
}

// A trainer's seed for the random numbers of its steps.
int64_t training_seed(int64_t seed, std::string_view model) {
  return static_cast<int64_t>(Rng(static_cast<uint64_t>(seed), fmt::format("{}.training", model)).next() >>
                              1);
}

TrainerParts shared_parts(const RunSettings& settings, const RunOptions& options,
                          const std::shared_ptr<Group>& group) {
  TrainerParts parts;
  parts.hand_over = hand_over;
  parts.group = group;
  parts.parallel = settings.parallel;
  parts.profile = options.profile;
  parts.name_text = [data = settings.data](const TextPlace& place) { return name_of(place, data); };
  return parts;
}

std::unique_ptr<Trainer> make_trainer(const TrainConfig& config, TrainerParts parts,
                                      const std::optional<fs::path>& checkpoint) {
  if (parts.valid) parts.valid();  // missing files are found now, not at the first validation
  auto trainer = std::make_unique<Trainer>(config, std::move(parts));
  if (checkpoint) trainer->resume(*checkpoint);
  return trainer;
}

std::unique_ptr<Trainer> entropy_model_trainer(const RunSettings& settings, const EntropyModel& model,
                                               at::Device device, const std::optional<fs::path>& checkpoint,
                                               const RunOptions& options,
                                               const std::shared_ptr<Group>& group) {
  const DataConfig& data = settings.data;
  const CostContext context{.sequence_bytes = static_cast<double>(data.sequence_bytes)};
  log_info(fmt::format("entropy model: {}", model_summary(*model, context)));
  TrainerParts parts = shared_parts(settings, options, group);
  model.ptr()->to(device);
  parts.model = trainable(model);
  const auto metrics = std::make_shared<LoaderMetrics>(data.sources);
  const Share share{group->rank(), group->size()};
  parts.train =
      make_byte_loader(data, Pass::kTraining, {.share = share, .metrics = metrics, .device = device});
  parts.metrics = [metrics] { return metrics->take(); };
  if (!data.validation.empty())
    parts.valid = [data, share, device] {
      return make_byte_loader(data, Pass::kValidation, {.share = share, .device = device});
    };
  parts.output = settings.output;
  parts.seed = training_seed(settings.seed, "entropy_model");
  parts.flops = training_flops(model->config(), context);
  parts.model_to_save = [settings, model] {
    return to_save(model_content(model), settings, kEntropyModelComment);
  };
  return make_trainer(settings.train, std::move(parts), checkpoint);
}

void calibrate_threshold(RunConfig& config, EntropySource& entropies, int64_t sample_bytes) {
  auto* rule = std::get_if<EntropyPatching>(&config.patching.rule);
  if (rule == nullptr || rule->threshold) return;
  log_info("finding the patching threshold on a sample of the training text");
  const Calibration result = calibrate_on(config.data, config.patching, entropies, sample_bytes);
  rule->set_threshold(result.threshold);
  log_info(fmt::format("patching threshold {:.6g} nats: {:.3f} bytes a patch in {}", result.threshold,
                       result.mean_patch_bytes, format_bytes(static_cast<uint64_t>(result.count.bytes))));
}

// How far the patches that are trained on are those of the entropy model on the CPU in float32, which the model's users will see.
void log_moved_patches(const RunConfig& config, const EntropyModel& model, EntropySource& entropies) {
  const DataConfig& data = config.data;
  if (data.entropy_device == "cpu" && data.entropy_compute == Compute::kFloat32) return;
  constexpr int64_t kSampleBytes = 1 << 14;  // the CPU takes a while for a large model
  EntropyModelSource of_users(model, {.reset_at_newline = config.patching.resets_at_newline()});
  const EntropySample here = entropy_sample(data, entropies, kSampleBytes);
  EntropySample there = here;
  there.entropies = of_users.entropies(here.ids);
  const StartsMoved moved = starts_moved(*make_patcher(config.patching), here.sequences(), there.sequences());
  log_info(
      fmt::format("entropies on {} in {}: of {} patches, {} start where those of the cpu in float32 start "
                  "none, and {} of theirs are missing",
                  data.entropy_device, name(data.entropy_compute), moved.starts, moved.added, moved.missing));
}

// Calibrates the threshold in `config` where it is not given.
std::unique_ptr<Trainer> blt_trainer(RunConfig& config, const Models& models, at::Device device,
                                     const CostContext& context, const std::optional<fs::path>& checkpoint,
                                     const RunOptions& options, const std::shared_ptr<Group>& group) {
  const auto metrics = std::make_shared<LoaderMetrics>(config.data.sources);
  std::shared_ptr<EntropySource> entropies, counted;  // counted: those of the training
  if (const auto* rule = std::get_if<EntropyPatching>(&config.patching.rule)) {
    if (models.entropy_model.is_empty())
      throw Error("the patching rule reads entropies, but the model to start from has no entropy model");
    const auto cached =
        make_entropies(config.data, models.entropy_model, rule->reset_at_newline, options.local_rank);
    entropies = cached;
    counted = cached->counted_in(metrics);
    calibrate_threshold(config, *entropies, options.check ? 1 << 14 : 1 << 18);
    if (group->is_first()) log_moved_patches(config, models.entropy_model, *entropies);
  }
  log_info(fmt::format("Byte Latent Transformer: {}", model_summary(*models.blt, context)));
  const PatchSchedule schedule = make_patch_schedule(config.data, config.patching, entropies.get());
  TrainerParts parts = shared_parts(config, options, group);
  models.blt.ptr()->to(device);
  parts.model = trainable(models.blt);
  const Share share{group->rank(), group->size()};
  parts.train = make_patch_loader(config.data, Pass::kTraining, schedule, counted,
                                  {.share = share, .metrics = metrics, .device = device});
  parts.metrics = [metrics] { return metrics->take(); };
  if (!config.data.validation.empty())
    parts.valid = [=, data = config.data] {
      return make_patch_loader(data, Pass::kValidation, schedule, entropies,
                               {.share = share, .device = device});
    };
  parts.output = config.output;
  parts.seed = training_seed(config.seed, "model");
  parts.flops = training_flops(models.blt->config(), context);
  if (entropies) {
    const double flops = flops_per_byte(*models.entropy_model, context);
    parts.entropy_flops = [metrics, flops, computed = int64_t{0}]() mutable {
      const int64_t before = std::exchange(computed, metrics->computed_entropies);
      return flops * static_cast<double>(computed - before);
    };
  }
  parts.model_to_save = [config, models] {
    const LoadedModel model{
        .config = {.blt = *config.model, .entropy_model = {}, .patching = config.patching},
        .blt = models.blt,
        .entropy_model = models.entropy_model};
    return to_save(model_content(model), config, kModelComment);
  };
  return make_trainer(config.train, std::move(parts), checkpoint);
}

// Another number of ranks, of batches or of steps is the user's to choose; one that was not meant is hard to see later.
void warn_of_other_steps(const Checkpoints& checkpoints, const RunConfig& config, int64_t ranks) {
  const auto warn = [&](const fs::path& checkpoint, const RunSettings& settings, std::string_view train) {
    for (const std::string& change : {change_of_step_size(checkpoint, settings, ranks, train),
                                      change_of_learning_rate(checkpoint, settings, train)})
      if (!change.empty()) log_warning(change);
  };
  if (checkpoints.blt)
    warn(*checkpoints.blt, config, "train");
  else if (checkpoints.entropy_model)
    warn(*checkpoints.entropy_model, entropy_model_settings(config), "entropy_model.train");
}

void check_a_step(Trainer& trainer) {
  const auto start = std::chrono::steady_clock::now();
  const StepStats stats = trainer.train_step();
  if (stats.clip.found_inf.item<float>() != 0)
    throw Error("check: the loss or its gradient is not finite in the first step");
  log_info(fmt::format("check: a step of {} bytes, loss {:.4f}, took {:.2f} s", stats.text.bytes,
                       stats.loss.item<double>(), seconds_since(start)));
  trainer.parallel().make_whole();  // the model is read by what comes next
}

// A failure that the other ranks know of.
struct Told {
  std::exception_ptr failure;
};

// A signal came when this rank was ready for its first step and another was not, which it has ended at once.
struct StoppedAtTheStart {};

// Tells the others at once: a trainer that ends waits for the checkpoint that it writes, which may take as long as disks do.
Trainer::Outcome run_and_tell(Trainer& trainer, Group& group) {
  const int64_t first = trainer.step();
  try {
    return trainer.run();
  } catch (const std::exception& e) {
    const bool is_of_others = dynamic_cast<const GroupError*>(&e) != nullptr;
    if (is_of_others && stop_requested() && trainer.step() == first) throw StoppedAtTheStart();
    if (!group.claim_failure(e.what())) throw FailureTold(e.what());
    throw Told{std::current_exception()};
  }
}

// Ranks with different settings would wait for transfers that others never begin.
void require_same_config(const RunConfig& config, Group& group) {
  const std::vector<std::string> configs = gather(group, to_json(config), "configs of ranks");
  for (size_t r = 1; r < configs.size(); ++r)
    if (configs[r] != configs[0])
      throw Error(fmt::format(
          "rank {} has another config than rank 0: start all ranks with the same file and the same "
          "command line (blt_train --print-config shows what each has)",
          r));
}

Trainer::Outcome run_stages(RunConfig config, const RunOptions& options,
                            const std::shared_ptr<Group>& group) {
  require_same_config(config, *group);
  const at::Device device =
      find_device(config.device, fmt::format("device: {}", config.device), options.local_rank);
  entropy_device(config.data, options.local_rank);  // found now, not when the entropy model is trained
  // What comes before a trainer's first step may take long, has nothing to save and no place to ask for a stop.
  const char* last_words = !group->is_first() ? "" : options.check ? kStoppedInCheck : kStoppedBeforeAStep;
  std::optional<StopAtOnce> starting(std::in_place, last_words);
  std::optional<FolderLock> lock;
  if (!options.check && group->is_first()) lock.emplace(config.output);
  if (options.check) config.data.entropy_cache.folder.reset();  // nothing is written
  const Checkpoints checkpoints = find_checkpoints(config, options.resume, *group);
  Models models = make_models(config, options.init);
  const CostContext context = cost_context(config);  // before the wanted mean length becomes a threshold
  restore(checkpoints, config, models);
  if (group->is_first()) warn_of_other_steps(checkpoints, config, group->size());

  if (models.train_entropy_model && !checkpoints.blt) {
    const auto trainer = entropy_model_trainer(entropy_model_settings(config), models.entropy_model, device,
                                               checkpoints.entropy_model, options, group);
    if (options.check) {
      check_a_step(*trainer);
    } else {
      starting.reset();
      const Trainer::Outcome outcome = run_and_tell(*trainer, *group);
      if (outcome == Trainer::Outcome::kStopped || models.blt.is_empty()) return outcome;
      if (sum_of_counts(*group, {int64_t{stop_requested()}}, "whether to stop")[0] > 0)
        return Trainer::Outcome::kStopped;  // in its last step
      starting.emplace(last_words);
    }
  }
  if (models.blt.is_empty()) return Trainer::Outcome::kFinished;

  if (!models.entropy_model.is_empty()) {
    // Patches are those of whoever loads the model: entropies in float32 and of the CPU's operators, however and wherever it was trained.
    models.entropy_model->to(at::kCPU, at::kFloat);
    freeze(*models.entropy_model);
  }
  const auto trainer = blt_trainer(config, models, device, context, checkpoints.blt, options, group);
  if (options.check) {
    check_a_step(*trainer);
    return Trainer::Outcome::kFinished;
  }
  starting.reset();
  return run_and_tell(*trainer, *group);
}

}  // namespace

Trainer::Outcome run(RunConfig config, const RunOptions& options) {
  const std::shared_ptr<Group> group = options.group ? options.group : make_alone_group();
  try {
    const Trainer::Outcome outcome = run_stages(std::move(config), options, group);
    group->barrier("end");  // nobody leaves while another needs it
    return outcome;
  } catch (const StoppedAtTheStart&) {
    if (group->is_first()) log_info(kStoppedBeforeAStep);
    return Trainer::Outcome::kStopped;
  } catch (const Told& told) {
    std::rethrow_exception(told.failure);
  } catch (const FailureTold&) {
    throw;
  } catch (const std::exception& e) {
    if (group->claim_failure(e.what())) throw;
    throw FailureTold(e.what());
  }
}

}  // namespace blt
