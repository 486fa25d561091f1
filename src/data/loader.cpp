#include "blt/data/loader.h"

#include <string>
#include <utility>
#include <vector>

#include "blt/data/documents.h"
#include "blt/data/mix.h"
#include "blt/data/pack.h"
#include "blt/data/repeat.h"
#include "blt/data/shuffle.h"

namespace blt {
namespace {

using Sequences = std::unique_ptr<Stage<Sequence>>;

// One source in training: pass after pass, each in an order of its own.
Sequences repeated(const DataConfig& config, const SourceConfig& source, size_t index) {
  std::vector<DataFile> files = find_files(source);
  for (const DataFile& file : files)
    if (file.path == "-")
      throw Error("standard input can be read only once: save it to a file to train on it");
  const auto seed = static_cast<uint64_t>(config.seed);
  const int64_t block = config.shuffle_sequences;
  Documents::Options options{
      .sequence_bytes = config.sequence_bytes, .text_field = source.text_field, .file_order = {}};
  return std::make_unique<Repeat<Sequence>>([=](int64_t pass) -> Sequences {
    const std::string name = "source" + std::to_string(index) + ".pass" + std::to_string(pass);
    Documents::Options of_pass = options;
    if (block > 0) of_pass.file_order = Rng(seed, name + ".files");
    Sequences documents = std::make_unique<Documents>(files, of_pass);
    if (block == 0) return documents;
    return std::make_unique<Shuffle<Sequence>>(std::move(documents), block, seed, name);
  });
}

std::unique_ptr<Stage<Batch>> pack(const DataConfig& config, Pass pass,
                                   std::shared_ptr<const Patcher> patcher,
                                   std::shared_ptr<EntropySource> entropies,
                                   std::shared_ptr<PatchCache> cache) {
  const bool patched = patcher != nullptr;
  auto sequences = std::make_unique<PatchStage>(
      make_sequences(config, pass), std::move(patcher), std::move(entropies), std::move(cache),
      PatchStage::Options{.eos = config.eos, .entropy_batch_bytes = config.entropy_batch_bytes});
  return std::make_unique<Pack>(std::move(sequences),
                                Pack::Options{.bytes = config.batch_bytes,
                                              .patches = patched ? config.batch_patches : std::nullopt,
                                              .patched = patched});
}

}  // namespace

std::unique_ptr<Stage<Sequence>> make_sequences(const DataConfig& config, Pass pass) {
  if (pass == Pass::kValidation) {
    std::vector<Sequences> inputs;
    for (const SourceConfig& source : config.validation)
      inputs.push_back(std::make_unique<Documents>(
          find_files(source),
          Documents::Options{
              .sequence_bytes = config.sequence_bytes, .text_field = source.text_field, .file_order = {}}));
    if (inputs.empty()) throw Error("there is no held-out text: name some under data.validation");
    return std::make_unique<Concatenate>(std::move(inputs));
  }
  std::vector<Mix::Input> inputs;
  for (const SourceConfig& source : config.sources)
    inputs.push_back({repeated(config, source, inputs.size()), source.weight});
  if (inputs.empty()) throw Error("there is no text to train on: name some under data.sources");
  return std::make_unique<Mix>(std::move(inputs));
}

std::unique_ptr<Stage<Batch>> make_byte_loader(const DataConfig& config, Pass pass) {
  return pack(config, pass, nullptr, nullptr, nullptr);
}

std::unique_ptr<Stage<Batch>> make_patch_loader(const DataConfig& config, Pass pass,
                                                std::shared_ptr<const Patcher> patcher,
                                                std::shared_ptr<EntropySource> entropies,
                                                std::shared_ptr<PatchCache> cache) {
  if (!cache && pass == Pass::kTraining) cache = std::make_shared<PatchCache>(config.patch_cache_mib << 20);
  return pack(config, pass, std::move(patcher), std::move(entropies), std::move(cache));
}

Calibration calibrate_on(const DataConfig& config, const PatchingConfig& patching, EntropySource& entropies,
                         int64_t sample_bytes) {
  const Sequences sequences = make_sequences(config, Pass::kTraining);
  std::vector<std::vector<int32_t>> ids;
  for (int64_t bytes = 0; bytes < sample_bytes;) {
    const Sequence sequence = *sequences->next();  // training never ends
    bytes += static_cast<int64_t>(sequence.bytes.size());
    ids.push_back(sequence.ids(config.eos));
  }
  const std::vector<SequenceScores> scores = entropies.scores(ids);
  std::vector<CalibrationSequence> sample;
  for (size_t i = 0; i < ids.size(); ++i) sample.push_back({ids[i], scores[i].entropies});
  const auto* rule = std::get_if<EntropyPatching>(&patching.rule);
  return calibrate(patching, sample,
                   rule ? rule->mean_patch_bytes.value_or(kDefaultMeanPatchBytes) : kDefaultMeanPatchBytes);
}

}  // namespace blt
