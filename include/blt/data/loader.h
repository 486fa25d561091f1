// The whole chain: files -> mix -> shuffle -> sequences -> split by rank -> entropies -> patches -> batches -> prefetch.
//
//   documents (documents.h) | shuffle (shuffle.h) | mix (mix.h) | split (split.h)       one order for all ranks
//   patch (patch_stage.h), entropies (entropy_source.h, entropy_cache.h)                 in threads, ahead of the trainer
//   pack (pack.h) | prefetch (prefetch.h)                                                in a thread, ahead of the trainer
//
// What comes out, and the state, depend on the config's data, seed and sizes alone: not on threads, on how far ahead they are, or on what
// a cache holds. A state is a few kilobytes, loads in any number of threads, and hand_over() makes one for any number of ranks.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <memory>
#include <span>

#include "blt/batch.h"
#include "blt/data/data_config.h"
#include "blt/data/entropy_cache.h"
#include "blt/data/entropy_model_source.h"
#include "blt/data/entropy_source.h"
#include "blt/data/metrics.h"
#include "blt/data/patch_stage.h"
#include "blt/data/sequence.h"
#include "blt/data/split.h"
#include "blt/data/stage.h"
#include "blt/patching/calibrate.h"
#include "blt/patching/patcher.h"

namespace blt {

// kTraining: `sources`, mixed, shuffled, for ever. kValidation: `validation`, once, in order, in whole sequences.
enum class Pass { kTraining, kValidation };

struct LoaderOptions {
  Share share = {};                                  // of the ranks that read the same data
  std::shared_ptr<LoaderMetrics> metrics = nullptr;  // null: nothing is counted
  // Where batches are handed out. Those for another device than the CPU are copied from pinned memory, without waiting, by the thread that
  // makes them and on a stream of the loader's own. Whoever computes on the current stream of the thread that calls next() finds them in place
  // (not yet run on a GPU).
  c10::Device device = c10::kCPU;
};

// Throws blt::Error when the pass has no sources, or their files are missing or empty.
std::unique_ptr<Stage<Sequence>> make_sequences(const DataConfig& config, Pass pass,
                                                const std::shared_ptr<LoaderMetrics>& metrics = nullptr);

// Batches without patches, for the entropy model.
std::unique_ptr<Stage<Batch>> make_byte_loader(const DataConfig& config, Pass pass,
                                               const LoaderOptions& options = {});

// Batches with patches. entropies: null where the patcher needs none.
std::unique_ptr<Stage<Batch>> make_patch_loader(const DataConfig& config, Pass pass,
                                                std::shared_ptr<const Patcher> patcher,
                                                std::shared_ptr<EntropySource> entropies,
                                                const LoaderOptions& options = {});
// The same with patches that change over the training text.
std::unique_ptr<Stage<Batch>> make_patch_loader(const DataConfig& config, Pass pass, PatchSchedule schedule,
                                                std::shared_ptr<EntropySource> entropies,
                                                const LoaderOptions& options = {});

// One state out of those of all ranks, in the order of their rank, at any places: loaded by the loaders of any number of ranks, these go
// on where those stopped, and every sequence is read once. Throws blt::Error when the states are not those of all ranks of one run.
StateWriter hand_over(std::span<const StateReader> states);

// Where config's entropies are computed; local_rank: for `cuda`, as find_device() takes it and with its errors.
c10::Device entropy_device(const DataConfig& config, int64_t local_rank = 0);

// Threads that ask for them: as the config says, or by default.
int64_t entropy_threads(const DataConfig& config);

// The entropy model on the device and in the type that the config asks for, behind its cache. model: frozen, float32, on the CPU; it stays so,
// and a copy is made where another is asked for. Throws blt::Error as entropy_device() and EntropyModelSource do.
std::shared_ptr<CachedEntropies> make_entropies(const DataConfig& config, EntropyModel model,
                                                bool reset_at_newline, int64_t local_rank = 0);

// The first `sample_bytes` bytes of the training text in its shuffled order, with their entropies.
struct EntropySample {
  std::vector<std::vector<int32_t>> ids;
  std::vector<std::vector<float>> entropies;

  std::vector<CalibrationSequence> sequences() const;  // refer to this
};
EntropySample entropy_sample(const DataConfig& config, EntropySource& entropies,
                             int64_t sample_bytes = 1 << 18);

// The threshold for `patching`'s wanted mean patch length (or kDefaultMeanPatchBytes), from a sample of the training text. Throws as
// calibrate() does.
Calibration calibrate_on(const DataConfig& config, const PatchingConfig& patching, EntropySource& entropies,
                         int64_t sample_bytes = 1 << 18);

// The patchers of a training whose patches grow as config.patch_length says to those of `patching`, which has its threshold; a single one
// where it says nothing. The thresholds before the last are found as calibrate_on does. Throws blt::Error where the rule has no threshold
// to lower, and as calibrate() does.
PatchSchedule make_patch_schedule(const DataConfig& config, const PatchingConfig& patching,
                                  EntropySource* entropies);

}  // namespace blt
