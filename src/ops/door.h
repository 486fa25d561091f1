// What the public functions of operators share: finding the dispatcher's entry, checking segments.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/util/Exception.h>

#include <initializer_list>

#include "blt/batch.h"

namespace blt::ops {

// The operator `name` ("blt::segment_pool"). Its C++ signature is checked against the schema, once.
template <class Signature>
c10::TypedOperatorHandle<Signature> schema(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").template typed<Signature>();
}

// An argument, and what messages call it.
struct Argument {
  const char* name;
  const at::Tensor& tensor;
};
using Arguments = std::initializer_list<Argument>;

// That all are on the device of the first: kernels follow addresses. Those that were not given are passed over.
inline void check_one_device(const char* op, const Argument& first, Arguments others) {
  for (const Argument& other : others)
    TORCH_CHECK(!other.tensor.defined() || other.tensor.device() == first.tensor.device(), op, ": ",
                first.name, " is on ", first.tensor.device(), ", but ", other.name, " on ",
                other.tensor.device());
}

// ... and of its type.
inline void check_one_type(const char* op, const Argument& first, Arguments others) {
  for (const Argument& other : others)
    TORCH_CHECK(!other.tensor.defined() || (other.tensor.scalar_type() == first.tensor.scalar_type() &&
                                            other.tensor.device() == first.tensor.device()),
                op, ": ", first.name, " is ", first.tensor.scalar_type(), " on ", first.tensor.device(),
                ", but ", other.name, " is ", other.tensor.scalar_type(), " on ", other.tensor.device());
}

// What sums of 16-bit values, and what is kept of a row, are made in.
inline at::ScalarType sum_type(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

// That `segments` cut the rows of `x`, on the same device. `what` names x.
inline void check_covers(const char* op, const char* what, const Segments& segments, const at::Tensor& x) {
  TORCH_CHECK(segments.offsets.defined(), op, ": the segments of ", what, " are undefined");
  TORCH_CHECK(segments.total == x.size(0), op, ": the segments cover ", segments.total, " rows, but ", what,
              " has ", x.size(0));
  TORCH_CHECK(segments.offsets.device() == x.device(), op, ": ", what, " is on ", x.device(),
              ", its segments on ", segments.offsets.device());
}

enum class Cover { kAll, kBeginning };

// What a CPU kernel needs of an offset array before it follows it: [count + 1] int32 from 0 to `rows` (or, of a beginning, to less), never
// decreasing. A schema can be called with anything.
inline const int32_t* checked_offsets(const char* op, const at::Tensor& offsets, int64_t rows,
                                      Cover cover = Cover::kAll) {
  TORCH_CHECK(offsets.dim() == 1 && offsets.scalar_type() == at::kInt && offsets.numel() >= 1 &&
                  offsets.is_contiguous() && offsets.device().is_cpu(),
              op, ": offsets must be contiguous [count + 1] int32 on the CPU, got ", offsets.scalar_type(),
              " ", offsets.sizes(), " on ", offsets.device());
  const int32_t* values = offsets.const_data_ptr<int32_t>();
  const int64_t count = offsets.numel() - 1;
  bool increases = true;
  for (int64_t s = 0; s < count; ++s) increases &= values[s] <= values[s + 1];
  const bool ends = cover == Cover::kAll ? values[count] == rows : values[count] <= rows;
  TORCH_CHECK(increases && values[0] == 0 && ends, op, ": offsets must go from 0 to ",
              cover == Cover::kAll ? "" : "at most ", rows, " without decreasing");
  return values;
}

}  // namespace blt::ops
