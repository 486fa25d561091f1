// What each way of sharding costs a rank: memory and traffic, in bytes, as formulas of the model's sizes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "blt/train/parallel.h"

namespace blt {

// Of the parameters that are trained.
struct ShardedSizes {
  int64_t dense = 0;            // elements, without n-gram tables
  int64_t layers = 0;           // of these, those of the latent transformer's layers
  int64_t largest_layer = 0;    // elements of one of them
  int64_t bucket = 0;           // elements of a bucket of gradients of the others
  int64_t tables = 0;           // elements of n-gram tables
  int64_t table_rows = 0;       // of all tables
  int64_t rows_of_batch = 0;    // that a micro-batch touches, at most
  bool all_rows_move = true;    // those without a gradient too
  int64_t parameter_bytes = 4;  // of an element: 4, or 2 in bfloat16
  // Bytes of the optimizer's state, whole, masters included.
  double dense_optimizer = 0, table_optimizer = 0;
  // Elements, where a rule moves matrices as a whole: what it works on the largest one with, and what a rank sends and receives of those that
  // lie across ranks, of all ranks the most.
  int64_t matrix_work = 0, matrix_parts = 0;
  int64_t micro_batches = 1;  // of a step, on each rank
  int64_t world = 1;          // ranks

  int64_t table_columns() const { return table_rows == 0 ? 0 : tables / table_rows; }
};

struct ShardingCost {
  // Held from step to step.
  double parameters = 0, tables = 0, optimizer = 0;
  double gradients =
      0;  // where they are collected; 0: each lies where the backward makes it, and is counted there
  // Besides, at its peak: beside the backward, while table rows are added up, and while parameters move.
  double beside_backward = 0, exchange = 0, update = 0;
  // Besides, when parameters are put together in the end.
  double whole = 0;

  struct Traffic {
    std::string what;
    double bytes = 0;  // that a rank receives in a step; it sends as many
  };
  std::vector<Traffic> traffic = {};
};

// Bytes of the gradient of a table's row, its id included, that is not on its way.
double row_bytes(const ShardedSizes& sizes);

// Transfers as rings do them: an all-reduce of n bytes brings every rank 2 (N - 1) / N n, a reduce-scatter or an all-gather half of that.
// Rows that a step touches are spread evenly over the ranks that have them.
//
// Source: Rajbhandari et al., ZeRO (arXiv:1910.02054), sections 5 and 7.
ShardingCost sharding_cost(const ParallelConfig& parallel, const ShardedSizes& sizes);

}  // namespace blt
