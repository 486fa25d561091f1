#include "blt/data/loader.h"

#include <ATen/Parallel.h>
#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "blt/base/error.h"
#include "blt/base/log.h"
#include "blt/data/documents.h"
#include "blt/data/mix.h"
#include "blt/data/pack.h"
#include "blt/data/prefetch.h"
#include "blt/data/repeat.h"
#include "blt/data/shuffle.h"
#include "blt/model/device.h"
#include "blt/model/linear.h"
#include "data/to_device.h"

namespace blt {
namespace {

using Sequences = std::unique_ptr<Stage<Sequence>>;

// index: of the source.
Documents::Options document_options(const DataConfig& config, const SourceConfig& source, size_t index) {
  return {.sequence_bytes = config.sequence_bytes,
          .source = static_cast<int32_t>(index),
          .text_field = source.text_field,
          .file_order = {},
          .on_error = source.on_error,
          .skipped = nullptr};
}

// One source in training: pass after pass, each in an order of its own.
Sequences repeated(const DataConfig& config, const SourceConfig& source, size_t index,
                   const std::shared_ptr<LoaderMetrics>& metrics) {
  const std::vector<DataFile> files = find_files(source);
  for (const DataFile& file : files)
    if (file.path == "-")
      throw Error("standard input can be read only once: save it to a file to train on it");
  const auto seed = static_cast<uint64_t>(config.seed);
  const int64_t block = config.shuffle_sequences;
  Documents::Options options = document_options(config, source, index);
  if (metrics) options.skipped = &metrics->sources[index].skipped;
  return std::make_unique<Repeat<Sequence>>([=](int64_t pass) -> Sequences {
    if (metrics) metrics->sources[index].epochs = pass;
    const std::string name = "source" + std::to_string(index) + ".pass" + std::to_string(pass);
    Documents::Options of_pass = options;
    if (block > 0) of_pass.file_order = Rng(seed, name + ".files");
    Sequences documents = std::make_unique<Documents>(files, of_pass);
    if (block == 0) return documents;
    return std::make_unique<Shuffle<Sequence>>(std::move(documents), block, seed, name);
  });
}

// Two passes keep a device busy, one computing while the other's results come back; more would only take memory.
constexpr int64_t kPassesAtOnce = 2;

// Ids that a block of the patch stage has, nearly always: its text, the sequence that it ends with, and what is not text (1 in 32, as
// sequences of 64 bytes with BOS and EOS have it). A multiple of what tiles of matrix products are high.
int64_t rows_of_a_block(const DataConfig& config) {
  constexpr int64_t kTile = 256;
  const int64_t most =
      config.entropy_batch_bytes + config.entropy_batch_bytes / 32 + config.sequence_bytes + 2;
  return (most + kTile - 1) / kTile * kTile;
}

EntropyModel frozen_copy(const EntropyModel& model, c10::Device device, at::ScalarType type) {
  EntropyModel copy(model->config());
  {
    const at::NoGradGuard no_grad;
    auto to = copy->named_parameters();
    for (const auto& parameter : model->named_parameters()) to[parameter.key()].copy_(parameter.value());
  }
  copy->to(device, type);
  freeze(*copy);
  return copy;
}

int64_t text_bytes(const Sequence& sequence) { return static_cast<int64_t>(sequence.bytes.size()); }

Pack::Options pack_options(const DataConfig& config, Pass pass, bool patched) {
  Pack::Options options{.bytes = config.batch_bytes,
                        .patches = patched ? config.batch_patches : std::nullopt,
                        .cut = pass == Pass::kTraining,
                        .patched = patched};
  if (!options.bytes && !options.patches) options.bytes = DataConfig::kDefaultBatchBytes;
  if (config.batch_sequences && pass == Pass::kTraining) {
    options.filled = config.filled_sizes(patched);
    if (patched && options.filled->patches == 0)
      throw Error(fmt::format("data.batch_sequences: {}", DataConfig::kNeedsPatches));
  }
  return options;
}

// The end of the chain. Its state is that of the packing, as of the last batch that was handed out.
class Loader : public Stage<Batch> {
 public:
  Loader(std::unique_ptr<Stage<Batch>> packed, int64_t depth, const LoaderOptions& options)
      : metrics_(options.metrics),
        prefetch_(std::make_unique<ToDevice>(std::move(packed), options.device), depth) {}

  std::optional<Batch> next() override {
    if (!metrics_) return take();
    metrics_->batches_ready.look(prefetch_.ready());
    const auto start = std::chrono::steady_clock::now();
    std::optional<Batch> batch = take();
    metrics_->waited_nanoseconds +=
        std::chrono::nanoseconds(std::chrono::steady_clock::now() - start).count();
    return batch;
  }
  void save(StateWriter& out) const override { prefetch_.save(out); }
  void load(const StateReader& in) override { prefetch_.load(in); }

 private:
  std::optional<Batch> take() {
    std::optional<BatchOnItsWay> batch = prefetch_.next();
    if (!batch) return std::nullopt;
    return std::move(*batch).arrive();
  }

  std::shared_ptr<LoaderMetrics> metrics_;
  Prefetch<BatchOnItsWay> prefetch_;
};

std::unique_ptr<Stage<Batch>> make_loader(const DataConfig& config, Pass pass, PatchSchedule schedule,
                                          std::shared_ptr<EntropySource> entropies,
                                          const LoaderOptions& options) {
  const Pack::Options packing = pack_options(config, pass, /*patched=*/!schedule.empty());
  PatchStage::Options patching{
      .eos = config.eos, .block_bytes = config.entropy_batch_bytes, .threads = 0, .blocks_ahead = 1};
  if (entropies) {
    DataConfig named = config;
    if (pass == Pass::kValidation) named.sources = named.validation;
    patching.name_text = [named](const TextPlace& place) { return name_of(place, named); };
    patching.threads = entropy_threads(config);
    // Enough for every thread, twice, and for the batches that are made ahead of the trainer.
    const int64_t batch_bytes = packing.bytes.value_or(0);
    patching.blocks_ahead = 2 * patching.threads + config.prefetch * batch_bytes / config.entropy_batch_bytes;
  }
  Sequences sequences = std::make_unique<Split>(make_sequences(config, pass, options.metrics), options.share);
  if (options.metrics)
    sequences = std::make_unique<Measured<Sequence>>(std::move(sequences), options.metrics,
                                                     &LoaderMetrics::read, text_bytes);
  auto patched = std::make_unique<PatchStage>(std::move(sequences), std::move(schedule), std::move(entropies),
                                              patching, options.metrics);
  auto packed = std::make_unique<Pack>(std::move(patched), packing, options.metrics);
  return std::make_unique<Loader>(std::move(packed), config.prefetch, options);
}

const EntropyPatching* threshold_rule(const PatchingConfig& patching) {
  return std::get_if<EntropyPatching>(&patching.rule);
}

}  // namespace

std::unique_ptr<Stage<Sequence>> make_sequences(const DataConfig& config, Pass pass,
                                                const std::shared_ptr<LoaderMetrics>& metrics) {
  if (pass == Pass::kValidation) {
    std::vector<Sequences> inputs;
    for (const SourceConfig& source : config.validation)
      inputs.push_back(
          std::make_unique<Documents>(find_files(source), document_options(config, source, inputs.size())));
    if (inputs.empty()) throw Error("there is no held-out text: name some under data.validation");
    return std::make_unique<Concatenate>(std::move(inputs));
  }
  std::vector<Mix::Input> inputs;
  for (const SourceConfig& source : config.sources)
    inputs.push_back({repeated(config, source, inputs.size(), metrics), source.weight});
  if (inputs.empty()) throw Error("there is no text to train on: name some under data.sources");
  return std::make_unique<Mix>(std::move(inputs), metrics);
}

std::unique_ptr<Stage<Batch>> make_byte_loader(const DataConfig& config, Pass pass,
                                               const LoaderOptions& options) {
  return make_loader(config, pass, {}, nullptr, options);
}

std::unique_ptr<Stage<Batch>> make_patch_loader(const DataConfig& config, Pass pass,
                                                std::shared_ptr<const Patcher> patcher,
                                                std::shared_ptr<EntropySource> entropies,
                                                const LoaderOptions& options) {
  return make_patch_loader(config, pass, PatchSchedule{{.text_bytes = 0, .patcher = std::move(patcher)}},
                           std::move(entropies), options);
}

std::unique_ptr<Stage<Batch>> make_patch_loader(const DataConfig& config, Pass pass, PatchSchedule schedule,
                                                std::shared_ptr<EntropySource> entropies,
                                                const LoaderOptions& options) {
  TORCH_CHECK(!schedule.empty(), "make_patch_loader: there is no patcher");
  if (pass == Pass::kValidation) schedule = {{.text_bytes = 0, .patcher = schedule.back().patcher}};
  return make_loader(config, pass, std::move(schedule), std::move(entropies), options);
}

StateWriter hand_over(std::span<const StateReader> states) {
  std::vector<Split::Stopped> stopped;
  for (const StateReader& pack : states) {
    const StateReader patch = pack.section("input");
    stopped.push_back({.split = patch.section("input"),
                       .since = patch.integer("taken"),
                       .unfinished = pack.integer("pending") != 0 ? pack.integer("pending_pieces") : 0});
  }
  StateWriter pack;
  pack.put("pending", 0);
  pack.put("pending_pieces", 0);
  StateWriter patch = pack.section("input");
  patch.put("block", 0);
  patch.put("taken", 0);
  patch.put("input", Split::hand_over(stopped));
  return pack;
}

c10::Device entropy_device(const DataConfig& config, int64_t local_rank) {
  return find_device(config.entropy_device, fmt::format("data.entropy_device: {}", config.entropy_device),
                     local_rank);
}

int64_t entropy_threads(const DataConfig& config) {
  return config.threads.value_or(config.entropy_device == "cpu" ? at::get_num_threads() : kPassesAtOnce);
}

std::shared_ptr<CachedEntropies> make_entropies(const DataConfig& config, EntropyModel model,
                                                bool reset_at_newline, int64_t local_rank) {
  constexpr int64_t kDefaultMemoryMib = 1024;
  const c10::Device device = entropy_device(config, local_rank);
  EntropyModelSource::Options how{.reset_at_newline = reset_at_newline,
                                  .batch_bytes = config.entropy_batch_bytes};
  if (!device.is_cpu()) {
    how.rows = rows_of_a_block(config);
    how.at_once = kPassesAtOnce;
  }
  const at::ScalarType type = config.entropy_compute == Compute::kBfloat16 ? at::kBFloat16 : at::kFloat;
  if (!device.is_cpu() || type != at::kFloat) model = frozen_copy(model, device, type);
  const auto source = std::make_shared<EntropyModelSource>(std::move(model), how);
  const EntropyCacheConfig& kept = config.entropy_cache;
  const std::optional<int64_t> most = kept.mib ? std::optional<int64_t>(*kept.mib << 20) : std::nullopt;
  const std::shared_ptr<EntropyCache> cache =
      kept.folder ? EntropyCache::on_disk(*kept.folder, most)
                  : EntropyCache::in_memory(most.value_or(kDefaultMemoryMib << 20));
  return std::make_shared<CachedEntropies>(source, source->identity(), cache);
}

std::vector<CalibrationSequence> EntropySample::sequences() const {
  std::vector<CalibrationSequence> result;
  for (size_t i = 0; i < ids.size(); ++i) result.push_back({ids[i], entropies[i]});
  return result;
}

EntropySample entropy_sample(const DataConfig& config, EntropySource& entropies, int64_t sample_bytes) {
  const Sequences sequences = make_sequences(config, Pass::kTraining);
  EntropySample sample;
  for (int64_t bytes = 0; bytes < sample_bytes;) {
    const Sequence sequence = *sequences->next();  // training never ends
    bytes += static_cast<int64_t>(sequence.bytes.size());
    sample.ids.push_back(sequence.ids(config.eos));
  }
  sample.entropies = entropies.entropies(sample.ids);
  return sample;
}

Calibration calibrate_on(const DataConfig& config, const PatchingConfig& patching, EntropySource& entropies,
                         int64_t sample_bytes) {
  const EntropySample sample = entropy_sample(config, entropies, sample_bytes);
  const EntropyPatching* rule = threshold_rule(patching);
  return calibrate(patching, sample.sequences(),
                   rule ? rule->mean_patch_bytes.value_or(kDefaultMeanPatchBytes) : kDefaultMeanPatchBytes);
}

PatchSchedule make_patch_schedule(const DataConfig& config, const PatchingConfig& patching,
                                  EntropySource* entropies) {
  if (!config.patch_length) return {{.text_bytes = 0, .patcher = make_patcher(patching)}};
  const PatchLengthConfig& growth = *config.patch_length;
  const EntropyPatching* rule = threshold_rule(patching);
  if (rule == nullptr || !rule->threshold || entropies == nullptr)
    throw Error(
        "data.patch_length lowers the threshold of an entropy rule, and this patching has none: remove it");
  const EntropySample sample = entropy_sample(config, *entropies);
  const std::vector<CalibrationSequence> sequences = sample.sequences();
  const PatchCount final_count = count_patches(*make_patcher(patching), sequences);
  if (final_count.mean_patch_bytes() <= growth.mean_patch_bytes)
    throw Error(
        fmt::format("data.patch_length starts with patches of {} bytes, but those of the patching rule have "
                    "{:.3f}: patches grow",
                    growth.mean_patch_bytes, final_count.mean_patch_bytes()));
  PatchSchedule schedule;
  for (int64_t stage = 0; stage < growth.stages; ++stage) {
    const double done = static_cast<double>(stage) / static_cast<double>(growth.stages);
    const Calibration found = calibrate(
        patching, sequences,
        growth.mean_patch_bytes + done * (final_count.mean_patch_bytes() - growth.mean_patch_bytes));
    PatchingConfig of_stage = patching;
    std::get<EntropyPatching>(of_stage.rule).threshold = found.threshold;
    const auto from = static_cast<int64_t>(done * static_cast<double>(growth.text_bytes));
    log_info(fmt::format(
        "patches from byte {} of the training text on: threshold {:.6g} nats, {:.3f} bytes a patch", from,
        found.threshold, found.mean_patch_bytes));
    schedule.push_back({.text_bytes = from, .patcher = make_patcher(of_stage)});
  }
  schedule.push_back({.text_bytes = growth.text_bytes, .patcher = make_patcher(patching)});
  return schedule;
}

}  // namespace blt
