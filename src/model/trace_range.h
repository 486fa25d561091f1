// A part of the work that profiles show by a name.
#pragma once

#include <ATen/record_function.h>

#include <string>
#include <string_view>

namespace blt {

// While it lives, what this thread does belongs to `name`; empty: it does not show. Where nobody records, nothing happens (a few
// nanoseconds).
class TraceRange {
 public:
  explicit TraceRange(std::string_view name) : recorded_(at::RecordScope::USER_SCOPE) {
    if (recorded_.isActive() && !name.empty()) recorded_.before(std::string(name));
  }

 private:
  at::RecordFunction recorded_;
};

}  // namespace blt
