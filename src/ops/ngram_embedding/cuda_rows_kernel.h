// What the CUDA kernels that turn gradients of look-ups into gradients of table rows are launched with.
//
// Keys (which row of a table) are sorted with their sources (which row of the gradient); equal keys are then a run. How many runs there are
// only the device knows; the host knows how many there can be.
#pragma once

#include <cstddef>

#include "ops/cuda/storage.h"

namespace blt::ops::BLT_DEVICE {

// `keys` of no row, such as that of a look-up that was left out, are `none`, larger than all others: no run is made of them.
struct RowRuns {
  const int32_t* keys;  // [pairs], sorted
  int64_t pairs;
  int32_t none;
  int32_t* tile_counts;  // [tiles(pairs)] scratch
  int32_t* ids;          // [pairs]: the key of each run
  int32_t* starts;       // [pairs + 1]: where runs start, and where the last one ends
  int32_t* count;        // [] runs
};

// out[r] = the sum of the rows sources[starts[r]], ..., of `from`, in this order; or, with `targets`, out[targets[r]].
struct RowSums {
  const void* from;        // [..., columns]
  const int32_t* sources;  // [pairs]
  const int32_t* starts;
  const int32_t* count;
  const int32_t* targets;  // or null
  void* out;
  int64_t most;  // count is at most so many
  int64_t columns;
};

// norm = that of the first *count rows of `values`, whatever is behind them.
struct RowsNorm {
  const float* values;  // [..., columns]
  const int32_t* count;
  double* partial;  // [kNormBlocks] scratch
  float* norm;      // []
  int64_t columns;
};
constexpr int64_t kNormBlocks = 1024;

int64_t tiles(int64_t pairs);

// keys[i] = ids[i] where it is in [0, none), else none; sources[i] = first_source + i / ids_per_source. Where `count` is not null, only the
// first *count of the ids are looked at.
void launch_row_keys(const int32_t* ids, int64_t pairs, const int32_t* count, int64_t ids_per_source,
                     int64_t first_source, int32_t none, int32_t* keys, int32_t* sources, Stream stream);

// Sorts pairs by key, equal ones in their order: keys and sources go from [0] to [1]. Keys are in [0, none]. Without a workspace, says how
// many bytes it takes.
size_t sort_rows(void* workspace, size_t workspace_bytes, const int32_t* keys, int32_t* sorted_keys,
                 const int32_t* sources, int32_t* sorted_sources, int32_t pairs, int32_t none, Stream stream);

void launch_row_runs(const RowRuns& a, Stream stream);
// to_float: out is float32, whatever `from` is; else it is like `from`.
void launch_row_sums(Storage storage, bool to_float, const RowSums& a, Stream stream);
// The same bits each time.
void launch_rows_norm(const RowsNorm& a, Stream stream);

}  // namespace blt::ops::BLT_DEVICE
