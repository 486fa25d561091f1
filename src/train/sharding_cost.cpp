#include "train/sharding_cost.h"

#include <algorithm>

namespace blt {
namespace {

constexpr double kGradientBytes = 4;  // float32, whatever the parameters are
constexpr double kIdBytes = 4;
constexpr double kInFlight = 2;  // buckets, with ZeRO-2

double wire_bytes(const ParallelConfig& parallel) {
  return parallel.gradient_dtype == WireType::kBfloat16 ? 2 : kGradientBytes;
}

// One rank alone: the dense parameters.
void add_alone(const ShardedSizes& s, ShardingCost& cost) {
  const double gradients = kGradientBytes * static_cast<double>(s.dense);
  cost.parameters = static_cast<double>(s.dense * s.parameter_bytes);
  cost.optimizer = s.dense_optimizer;
  cost.exchange = gradients;
  cost.update = gradients + kGradientBytes * static_cast<double>(s.matrix_work);
}

// Of several, the dense parameters, whose gradients are in buckets.
void add_dense(const ParallelConfig& parallel, const ShardedSizes& s, ShardingCost& cost) {
  const Sharding sharding = parallel.sharding;
  const auto world = static_cast<double>(s.world), dense = static_cast<double>(s.dense);
  const double others = (world - 1) / world, wire = wire_bytes(parallel);
  const bool narrow_wire = wire < kGradientBytes;  // then buckets on their way have two copies
  const auto parameter = static_cast<double>(s.parameter_bytes);
  const double layers = sharding == Sharding::kZero3 ? static_cast<double>(s.layers) : 0;
  const double whole = dense - layers;  // elements that every rank has whole

  cost.parameters = (whole + layers / world) * parameter;
  cost.whole = others * layers * parameter;
  cost.optimizer = s.dense_optimizer / (sharding == Sharding::kNone ? 1 : world);
  if (sharding == Sharding::kNone || sharding == Sharding::kZero1) {
    cost.gradients = kGradientBytes * dense;
    if (narrow_wire) cost.beside_backward = 2 * wire * dense;
  } else {
    cost.gradients = kGradientBytes * dense / world;
    const int64_t rest = sharding == Sharding::kZero3 ? s.dense - s.layers : s.dense;  // in common buckets
    int64_t bucket = std::min(s.bucket, rest);
    if (sharding == Sharding::kZero3) bucket = std::max(bucket, s.largest_layer);
    const double copies = narrow_wire ? 2 * wire * kInFlight : 0;
    cost.beside_backward = std::min((kGradientBytes * (1 + kInFlight) + copies) * static_cast<double>(bucket),
                                    (kGradientBytes + (narrow_wire ? 2 * wire : 0)) * dense);
    // A layer that computes, and the one after it.
    if (sharding == Sharding::kZero3)
      cost.beside_backward += 2 * parameter * static_cast<double>(s.largest_layer);
  }
  cost.update = kGradientBytes * static_cast<double>(s.matrix_parts + s.matrix_work);
  if (sharding == Sharding::kNone) {
    cost.traffic.push_back({"gradients, all-reduced", 2 * others * wire * dense});
    return;
  }
  // After the matrices are moved: the gathered ones, and what this rank gives.
  cost.update = std::max(cost.update, whole * parameter * (1 + 1 / world));
  const double sends = sharding == Sharding::kZero1 ? 1 : static_cast<double>(s.micro_batches);
  cost.traffic.push_back({"gradients, reduce-scattered", others * wire * dense * sends});
  if (s.matrix_parts > 0)
    cost.traffic.push_back(
        {"parts of matrices, there and back, at most", kGradientBytes * static_cast<double>(s.matrix_parts)});
  cost.traffic.push_back({"parameters, all-gathered", others * parameter * whole});
  if (layers > 0)
    cost.traffic.push_back({"parameters of layers, all-gathered",
                            2 * others * parameter * layers * static_cast<double>(s.micro_batches)});
}

// The rows of every micro-batch lie there until they are merged.
double merging(const ShardedSizes& s, double own) {
  const auto touched = static_cast<double>(s.rows_of_batch * s.micro_batches);
  return (touched + (s.micro_batches > 1 ? own : 0)) * row_bytes(s);
}

void add_tables(const ParallelConfig& parallel, const ShardedSizes& s, ShardingCost& cost) {
  const bool sharded = parallel.tables == TablePlacement::kSharded && s.world > 1;
  const bool divided = sharded || (parallel.sharding != Sharding::kNone && s.world > 1);
  const auto world = static_cast<double>(s.world);
  const double others = (world - 1) / world, row = row_bytes(s),
               parameter_row = static_cast<double>(s.parameter_bytes * s.table_columns()),
               wire_row = wire_bytes(parallel) * static_cast<double>(s.table_columns()) + kIdBytes;
  const int64_t touched = s.rows_of_batch * s.micro_batches;
  const auto own = static_cast<double>(std::min(touched, s.table_rows));
  const auto all = static_cast<double>(std::min(touched * s.world, s.table_rows));
  const double tables = static_cast<double>(s.tables * s.parameter_bytes);

  cost.tables = tables / (sharded ? world : 1);
  if (sharded) cost.whole += others * tables;
  cost.optimizer += s.table_optimizer / (divided ? world : 1);
  if (s.world == 1) {
    cost.exchange += merging(s, own);
    cost.update += own * row;
  } else if (sharded) {
    // Its own, what it sends and gets of them, and their sum.
    cost.exchange = std::max(merging(s, own), own * row + 2 * own * wire_row + all / world * row);
    cost.update += all / world * row;
    const auto looked_up = static_cast<double>(s.rows_of_batch * s.micro_batches);
    cost.traffic.push_back(
        {"n-gram rows that were looked up", others * looked_up * (parameter_row + kIdBytes)});
    cost.traffic.push_back({"gradients of table rows, to their owners", others * own * wire_row});
  } else {
    // Its own, a copy that is sent, everybody's, and the sum.
    cost.exchange = std::max(merging(s, own), own * row + (1 + world) * own * wire_row + all * row);
    cost.update += all * row;
    cost.traffic.push_back({"gradients of table rows, all-gathered", (world - 1) * own * wire_row});
    if (divided && s.all_rows_move)
      cost.traffic.push_back({"n-gram tables, broadcast", others * tables});
    else if (divided)
      cost.traffic.push_back({"n-gram rows that moved, broadcast", others * all * parameter_row});
  }
}

}  // namespace

double row_bytes(const ShardedSizes& sizes) {
  return kGradientBytes * static_cast<double>(sizes.table_columns()) + kIdBytes;
}

ShardingCost sharding_cost(const ParallelConfig& parallel, const ShardedSizes& sizes) {
  ShardingCost cost;
  if (sizes.world == 1)
    add_alone(sizes, cost);
  else
    add_dense(parallel, sizes, cost);
  if (sizes.tables > 0) add_tables(parallel, sizes, cost);
  return cost;
}

}  // namespace blt
