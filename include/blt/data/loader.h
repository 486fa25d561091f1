// The whole chain: files -> mix -> shuffle -> sequences -> entropies -> patches -> batches.
//
//   documents (documents.h) | mix (mix.h) | shuffle (shuffle.h) | patch (patch_stage.h) | pack (pack.h)
#pragma once

#include <cstdint>
#include <memory>

#include "blt/batch.h"
#include "blt/data/data_config.h"
#include "blt/data/entropy_source.h"
#include "blt/data/patch_stage.h"
#include "blt/data/sequence.h"
#include "blt/data/stage.h"
#include "blt/patching/calibrate.h"
#include "blt/patching/patcher.h"

namespace blt {

// kTraining: `sources`, mixed, shuffled, for ever. kValidation: `validation`, once, in order.
enum class Pass { kTraining, kValidation };

// Throws blt::Error when the pass has no sources, or their files are missing or empty.
std::unique_ptr<Stage<Sequence>> make_sequences(const DataConfig& config, Pass pass);

// Batches without patches, for the entropy model.
std::unique_ptr<Stage<Batch>> make_byte_loader(const DataConfig& config, Pass pass);

// Batches with patches. entropies: null where the patcher needs none. cache: keeps patches between passes and
// loaders; null: none is kept beyond this loader (training makes its own of config.patch_cache_mib).
std::unique_ptr<Stage<Batch>> make_patch_loader(const DataConfig& config, Pass pass,
                                                std::shared_ptr<const Patcher> patcher,
                                                std::shared_ptr<EntropySource> entropies,
                                                std::shared_ptr<PatchCache> cache = nullptr);

// The threshold for `patching`'s wanted mean patch length (or kDefaultMeanPatchBytes), from the first
// `sample_bytes` bytes of the training text in its shuffled order. Throws as calibrate() does.
Calibration calibrate_on(const DataConfig& config, const PatchingConfig& patching, EntropySource& entropies,
                         int64_t sample_bytes = 1 << 18);

}  // namespace blt
