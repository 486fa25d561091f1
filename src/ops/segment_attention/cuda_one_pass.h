// The backward of segment_attention in one pass over memory, where one side of every segment has few rows: in a BLT it has k.
#pragma once

#include "ops/segment_attention/cuda_kernel.h"

namespace blt::ops::BLT_DEVICE {

void launch_segment_attention_in_one_pass(Storage storage, const SegmentAttentionBackward& b, Stream stream);

}  // namespace blt::ops::BLT_DEVICE
