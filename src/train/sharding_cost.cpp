#include "train/sharding_cost.h"

#include <algorithm>

namespace blt {
namespace {

constexpr const char* kParameters = "parameters, all-gathered";
constexpr double kGradientBytes = 4;  // float32, whatever the parameters are
constexpr double kBuckets = 3;        // with ZeRO-2: one that is filled, and two on their way

// Everything whole, gradients in buckets where there are several ranks, rows of tables from all to all.
ShardingCost data_parallel(const ShardedSizes& s) {
  const auto dense = static_cast<double>(s.dense), tables = static_cast<double>(s.tables);
  const auto world = static_cast<double>(s.world), row = static_cast<double>(s.row_bytes);
  const double others = (world - 1) / world;
  const int64_t touched = s.rows_of_batch * s.micro_batches;
  const auto own = static_cast<double>(std::min(touched, s.table_rows));
  const auto all = static_cast<double>(std::min(touched * s.world, s.table_rows));
  ShardingCost cost;
  cost.parameters = dense * static_cast<double>(s.parameter_bytes);
  cost.tables = tables * static_cast<double>(s.parameter_bytes);
  cost.optimizer = s.optimizer;
  // The rows of every micro-batch lie there until they are merged.
  const double merging = static_cast<double>(touched) * row + (s.micro_batches > 1 ? own * row : 0);
  if (s.world == 1) {
    cost.exchange = kGradientBytes * dense + merging;
    cost.update = kGradientBytes * dense + own * row;
    return cost;
  }
  cost.gradients = kGradientBytes * dense;
  // Their own, a copy that is sent, everybody's, and the sum.
  cost.exchange = std::max(merging, (own + own + world * own + all) * row);
  cost.update = all * row;
  cost.traffic.push_back({"gradients, all-reduced", 2 * others * kGradientBytes * dense});
  if (s.tables > 0)
    cost.traffic.push_back({"gradients of table rows, all-gathered", (world - 1) * own * row});
  return cost;
}

// Besides: the optimizer's state divided, and parameters put together again.
ShardingCost zero1(const ShardedSizes& s) {
  ShardingCost cost = data_parallel(s);
  if (s.world == 1) return cost;
  const auto world = static_cast<double>(s.world);
  const double others = (world - 1) / world;
  cost.optimizer /= world;
  cost.update += cost.parameters * (1 + 1 / world);  // the gathered ones, and what this rank gives
  cost.traffic[0] = {"gradients, reduce-scattered", others * kGradientBytes * static_cast<double>(s.dense)};
  cost.traffic.push_back({kParameters, others * cost.parameters});
  if (s.tables > 0) cost.traffic.push_back({"n-gram tables, broadcast", others * cost.tables});
  return cost;
}

// Besides: gradients divided, which travel with every micro-batch.
ShardingCost zero2(const ShardedSizes& s) {
  ShardingCost cost = zero1(s);
  if (s.world == 1) return cost;
  cost.gradients /= static_cast<double>(s.world);
  cost.beside_backward = kBuckets * kGradientBytes * static_cast<double>(std::min(s.bucket, s.dense));
  cost.traffic[0].bytes *= static_cast<double>(s.micro_batches);
  return cost;
}

// Besides: layers divided, each with a bucket of its own, and gathered for each forward and each backward.
ShardingCost zero3(const ShardedSizes& s) {
  ShardingCost cost = zero2(s);
  if (s.world == 1) return cost;
  const auto world = static_cast<double>(s.world), bytes = static_cast<double>(s.parameter_bytes);
  const double others = (world - 1) / world, layers = bytes * static_cast<double>(s.layers),
               rest = bytes * static_cast<double>(s.dense - s.layers);
  cost.parameters = rest + layers / world;
  cost.whole = others * layers;
  const int64_t bucket = std::max(std::min(s.bucket, s.dense - s.layers), s.largest_layer);
  // A layer that computes and the one after it.
  cost.beside_backward = kBuckets * kGradientBytes * static_cast<double>(bucket) +
                         2 * bytes * static_cast<double>(s.largest_layer);
  cost.update -= layers * (1 + 1 / world);
  for (ShardingCost::Traffic& traffic : cost.traffic)
    if (traffic.what == kParameters) traffic.bytes = others * rest;
  cost.traffic.push_back(
      {"parameters of layers, all-gathered", 2 * others * layers * static_cast<double>(s.micro_batches)});
  return cost;
}

}  // namespace

ShardingCost sharding_cost(Sharding sharding, const ShardedSizes& sizes) {
  switch (sharding) {
    case Sharding::kNone:
      return data_parallel(sizes);
    case Sharding::kZero1:
      return zero1(sizes);
    case Sharding::kZero2:
      return zero2(sizes);
    case Sharding::kZero3:
      return zero3(sizes);
  }
  return {};
}

}  // namespace blt
