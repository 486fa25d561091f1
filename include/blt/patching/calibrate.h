// Finds the threshold that gives a wanted mean patch length.
#pragma once

#include <cstdint>
#include <span>

#include "blt/patching/patcher.h"
#include "blt/patching/patching_config.h"

namespace blt {

constexpr double kDefaultMeanPatchBytes = 4.5;

// Mean patch length is text bytes over patches, where patches that are a sequence's BOS alone are not counted
// (REFERENCE section 16).
struct PatchCount {
  int64_t bytes = 0;    // of text: special ids are not counted
  int64_t patches = 0;  // without the BOS patches

  // ids and starts as in PatchedSequence.
  void add(std::span<const int32_t> ids, std::span<const int64_t> starts);
  double mean_patch_bytes() const {
    return patches == 0 ? 0.0 : static_cast<double>(bytes) / static_cast<double>(patches);
  }
};

// One sequence to calibrate on. Refers to the caller's memory.
struct CalibrationSequence {
  std::span<const int32_t> ids;      // S ids, BOS first
  std::span<const float> entropies;  // S entropies in nats
};

// What `patcher` makes of the sample. Thread-safe, as patchers are.
PatchCount count_patches(const Patcher& patcher, std::span<const CalibrationSequence> sample);

// How far two kinds of entropies of the same ids cut otherwise.
struct StartsMoved {
  int64_t starts = 0;   // of patches by `entropies`
  int64_t added = 0;    // those of them where `others` start none
  int64_t missing = 0;  // where `others` start one and `entropies` none
};
StartsMoved starts_moved(const Patcher& patcher, std::span<const CalibrationSequence> entropies,
                         std::span<const CalibrationSequence> others);

struct Calibration {
  double threshold = 0;         // exactly a float32
  double mean_patch_bytes = 0;  // what it gives on the sample
  PatchCount count;
};

// The threshold of `config`'s entropy rule (plain, threshold_add or monotonic, with max_patch_length) whose
// mean patch length on the sample is the nearest to `mean_patch_bytes`. Exact: the number of patches changes
// only where the threshold passes a value that occurs in the sample, and never grows with it, so those values
// are bisected. The threshold lies midway between two of them. Throws blt::Error when the nearest is more
// than 5% off (naming it), and when the sample has no text; c10::Error when the rule of `config` is not
// EntropyPatching.
Calibration calibrate(const PatchingConfig& config, std::span<const CalibrationSequence> sample,
                      double mean_patch_bytes);

}  // namespace blt
