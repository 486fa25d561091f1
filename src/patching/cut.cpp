#include "blt/patching/cut.h"

#include <algorithm>

#include "blt/patching/rules.h"
#include "patching/cpu_kernel.h"

namespace blt {

std::vector<int64_t> detail::starts_of(Marks& marks, int64_t count) {
  const int64_t whole = (count + ops::kMarkGroup - 1) / ops::kMarkGroup * ops::kMarkGroup;
  std::fill(marks.begin() + count, marks.begin() + whole, uint8_t{0});
  // The memory is the thread's, the result has what it needs.
  static thread_local std::vector<int64_t> starts;
  if (static_cast<int64_t>(starts.size()) < 1 + count + ops::kStartsAtOnce)
    starts.resize(1 + count + ops::kStartsAtOnce);
  starts[0] = 0;
  const int64_t found = BLT_KERNEL(starts_after)(marks.data(), count, starts.data() + 1);
  return {starts.begin(), starts.begin() + 1 + found};
}

detail::Marks& detail::marks_for(int64_t count) {
  static thread_local Marks marks;
  if (static_cast<int64_t>(marks.size()) < count + ops::kMarkGroup) marks.resize(count + ops::kMarkGroup);
  return marks;
}

void SpaceRule::mark(std::span<const int32_t> ids, uint8_t* marks) const {
  BLT_KERNEL(space_marks)(ids.data(), static_cast<int64_t>(ids.size()), kByteOffset, marks);
}

}  // namespace blt
