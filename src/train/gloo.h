// PyTorch's transport between processors.
#pragma once

#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include <chrono>

#include "blt/train/rendezvous.h"

namespace blt {

// Connects to all other ranks, which do the same. Throws blt::Error where a connection cannot be made, or this build has no Gloo.
c10::intrusive_ptr<c10d::Backend> make_gloo(const c10::intrusive_ptr<c10d::Store>& store,
                                            const RankPlace& place, std::chrono::milliseconds timeout);

}  // namespace blt
