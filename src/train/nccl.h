// PyTorch's transport between GPUs. Not yet run.
#pragma once

#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include <chrono>

#include "blt/train/rendezvous.h"

namespace blt {

// Connects with the first transfer, by way of the device that its tensor is on. Waiting for one of its transfers lets the device wait, not
// the caller; what hangs for longer than `timeout` is the caller's to find out. Throws blt::Error where there is no GPU, or this build has no NCCL.
c10::intrusive_ptr<c10d::Backend> make_nccl(const c10::intrusive_ptr<c10d::Store>& store,
                                            const RankPlace& place, std::chrono::milliseconds timeout);

}  // namespace blt
