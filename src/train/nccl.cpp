#include "train/nccl.h"

#include <fmt/format.h>

#include <string>

#include "blt/base/error.h"
#include "train/first_line.h"

#define USE_C10D_NCCL  // without it the header is empty
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

namespace blt {

c10::intrusive_ptr<c10d::Backend> make_nccl(const c10::intrusive_ptr<c10d::Store>& store,
                                            const RankPlace& place, std::chrono::milliseconds timeout) {
  const auto options = c10d::ProcessGroupNCCL::Options::create();
  // c10d's watchdog counts from when a transfer was handed to the device. It comes behind the group's own (TransferWatch), which knows more.
  constexpr std::chrono::minutes kBehind(1);
  options->timeout = 2 * timeout + kBehind;
  try {
    return c10::make_intrusive<c10d::ProcessGroupNCCL>(c10::make_intrusive<c10d::PrefixStore>("nccl", store),
                                                       static_cast<int>(place.rank),
                                                       static_cast<int>(place.ranks), options);
  } catch (const std::exception& e) {
    throw Error(
        fmt::format("rank {} of {}: no transport between GPUs: {}", place.rank, place.ranks, first_line(e)));
  }
}

}  // namespace blt
