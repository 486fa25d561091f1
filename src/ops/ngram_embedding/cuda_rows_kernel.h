// What the CUDA kernels that turn gradients of look-ups into gradients of table rows are launched with.
//
// Keys (which row of a table) are sorted with their sources (which row of the gradient); equal keys are then a run. How many runs there are
// only the device knows; the host knows how many there can be.
#pragma once

#include <cstddef>

#include "ops/cuda/storage.h"

namespace blt::ops::BLT_DEVICE {

// Pairs are cut into parts of so many, each of which a warp adds up.
constexpr int64_t kPart = 128;
int64_t parts(int64_t pairs);

// `keys` of no row, such as that of a look-up that was left out, are `none`, larger than all others: no run is made of them.
struct RowRuns {
  const int32_t* keys;  // [pairs], sorted
  int64_t pairs;
  int32_t none;
  int32_t* before;  // [parts(pairs)]: the runs that start before each part
  int32_t* count;   // [] runs
};

// out[r] = the sum of the rows of `from` that the sources of run r name, in the order of the pairs but for where a part ends; ids[r] its key.
struct RowSums {
  RowRuns runs;
  const int32_t* sources;  // [pairs]
  const void* from;        // [..., columns]
  int32_t* ids;            // [pairs], or null: then a row of `out` is that of the key, not of the run
  void* out;
  float*
      partial;  // [parts, 2, columns] scratch: of a run that began before the part; of one that goes on behind it
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

// keys[i] = ids[i] where it is in [0, none), else none; sources[i] = first_source + i / ids_per_source. Where `count` is not null, only the
// first *count of the ids are looked at.
void launch_row_keys(const int32_t* ids, int64_t pairs, const int32_t* count, int64_t ids_per_source,
                     int64_t first_source, int32_t none, int32_t* keys, int32_t* sources, Stream stream);

// Sorts pairs by key, equal ones in their order: keys and sources go from [0] to [1]. Keys are in [0, none]. Without a workspace, says how
// many bytes it takes.
size_t sort_rows(void* workspace, size_t workspace_bytes, const int32_t* keys, int32_t* sorted_keys,
                 const int32_t* sources, int32_t* sorted_sources, int32_t pairs, int32_t none, Stream stream);

// Fills `before` and `count`.
void launch_row_runs(const RowRuns& a, Stream stream);
// to_float: out is float32, whatever `from` is; else it is like `from`.
void launch_row_sums(Storage storage, bool to_float, const RowSums& a, Stream stream);
// The same bits each time.
void launch_rows_norm(const RowsNorm& a, Stream stream);

}  // namespace blt::ops::BLT_DEVICE
