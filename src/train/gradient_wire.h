// How buckets of gradients are added up over the ranks.
#pragma once

#include <ATen/core/Tensor.h>

#include <deque>
#include <memory>
#include <string_view>

#include "blt/train/group.h"
#include "blt/train/parallel.h"

namespace blt {

// In float32 the group adds up. In bfloat16 every rank sends its parts, rounded, to those that add them up, in float32 and in the order of
// the ranks; a sum that goes to all is rounded once more. Half the bytes travel. All ranks call the same functions in the same order, and
// wait for sums in the order in which they began. The group outlives it, and it outlives its transfers.
class GradientWire {
 public:
  GradientWire(Group& group, WireType type) : group_(group), type_(type) {}

  // As those of Group; of elements in a multiple of the ranks.
  Group::Pending sum(const at::Tensor& tensor, std::string_view what);
  Group::Pending reduce_scatter(const at::Tensor& output, const at::Tensor& input, std::string_view what);

 private:
  class Exchange;
  class Part;
  class Sum;
  // Sends sums of parts to all, until so many exchanges are left of which that has not begun.
  void advance(size_t left);

  Group& group_;
  WireType type_;
  std::deque<std::shared_ptr<Exchange>> exchanges_;  // under way, of sums
};

}  // namespace blt
