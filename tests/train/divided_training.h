// A small training that ranks share, with everything divided among them that can be.
#pragma once

#include <torch/torch.h>

#include <cstddef>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "blt/train/parallel.h"
#include "blt/train/trainer.h"
#include "train/small_model.h"

namespace blt::testing {

inline constexpr Sharding kShardings[] = {Sharding::kNone, Sharding::kZero1, Sharding::kZero2,
                                          Sharding::kZero3};

// What is divided among the ranks.
struct Division {
  Sharding sharding = Sharding::kNone;
  TablePlacement tables = TablePlacement::kReplicated;

  bool has(Sharding least) const { return sharding >= least; }
  bool has_tables() const { return tables == TablePlacement::kSharded; }
};

inline std::vector<Division> divisions() {
  std::vector<Division> result;
  for (const Sharding sharding : kShardings)
    for (const TablePlacement tables : {TablePlacement::kReplicated, TablePlacement::kSharded})
      result.push_back({sharding, tables});
  return result;
}

inline std::string name_of(const Division& division) {
  return std::string(name(division.sharding)) + "-" + std::string(name(division.tables));
}

inline constexpr double kSmallBuckets = 0.03;  // so that there are several
inline ParallelConfig divided(const Division& division) {
  return {.sharding = division.sharding, .tables = division.tables, .bucket_mib = kSmallBuckets};
}

inline TrainConfig training(int64_t accumulate, Compute compute, int64_t steps = 10) {
  TrainConfig config;
  config.steps = steps;
  config.accumulate = accumulate;
  config.compute = compute;
  config.optimizer.learning_rate = 1e-3;
  config.schedule = ConstantSchedule{};
  config.log_every = 1000;
  return config;
}

// Sequences of many lengths, so that ranks have unequal numbers of targets.
inline std::vector<PatchedSequence> sequences() {
  std::vector<PatchedSequence> result;
  for (size_t i = 0; i < 24; ++i)
    result.push_back(sequence(std::string("abcabc xyxy the quick brown fox").substr(i % 7, 5 + i * 5 % 23)));
  return result;
}

// What a rank reads: every `ranks`-th sequence, in `accumulate` batches a step.
inline std::unique_ptr<Stage<Batch>> share_of(int64_t rank, int64_t ranks, int64_t accumulate,
                                              at::Device device = at::kCPU) {
  const std::vector<PatchedSequence> all = sequences();
  std::vector<std::vector<PatchedSequence>> parts(static_cast<size_t>(accumulate));
  for (size_t i = static_cast<size_t>(rank), n = 0; i < all.size(); i += static_cast<size_t>(ranks), ++n)
    parts[n % parts.size()].push_back(all[i]);
  std::vector<Batch> batches;
  for (const auto& part : parts) batches.push_back(Batch::pack(part).to(device));
  return std::make_unique<RepeatBatches>(std::move(batches));
}

// A model with the same parameters at every call, and several layers to divide.
inline Blt new_model(at::Device device = at::kCPU, at::ScalarType type = at::kFloat) {
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  torch::manual_seed(3);
  BltConfig config = small_config();
  config.latent_transformer.layers = 3;
  Blt model(config);
  model->to(device, type);
  return model;
}

}  // namespace blt::testing
