// The models and the batch that libblt is timed with: the shapes, the text rule and the patch boundaries of the peer (bench/beside_peer).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "blt/batch.h"
#include "blt/data/filled_batch.h"
#include "blt/model/blt.h"
#include "blt/model/entropy_model.h"

namespace blt::bench {

// "small" (103 M parameters, 77 M of them n-gram tables), "tiny", or the paper's "400m" and "1b" (configs/blt/; 2.3 and 3.1 G more are n-gram tables).
// Throws c10::Error for another name.
BltConfig shape(std::string_view name);
// A model on the device. On one that is not the CPU its parameters are made there, normally distributed or (gains) 1: billions of random numbers
// would take the CPU a minute.
Blt make_model(const BltConfig& config, at::Device device);
// The entropy model that goes with it; "100m": the paper's, which goes with its models.
EntropyModelConfig entropy_shape(std::string_view name);

// `text` over and over, cut into `rows` sequences of `bytes` ids each, the first of which becomes BOS. Patches start at 0, at 1, and
// then anywhere with probability 1 / mean_patch; every row keeps as many as the row with the fewest. The same random numbers as
// torch.rand of a generator with seed 0, so the same patches as the peer's.
std::vector<PatchedSequence> sequences(const std::string& text, int64_t rows, int64_t bytes,
                                       double mean_patch);
// Those end to end.
Batch batch(const std::string& text, int64_t rows, int64_t bytes, double mean_patch);
// The smallest batch of one size that has them, with as little filler as can be.
FilledSizes sizes_around(const std::vector<PatchedSequence>& sequences);

// Some English, for runs without the peer's text.
extern const std::string kText;

}  // namespace blt::bench
