#include "train/gloo.h"

#include <fmt/format.h>

#include <cstdlib>
#include <string>

#include "blt/base/error.h"
#include "train/first_line.h"

#define USE_C10D_GLOO  // without it the header is empty
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

namespace blt {

c10::intrusive_ptr<c10d::Backend> make_gloo(const c10::intrusive_ptr<c10d::Store>& store,
                                            const RankPlace& place, std::chrono::milliseconds timeout) {
  const auto options = c10d::ProcessGroupGloo::Options::create(timeout);
  try {
    const char* interface = std::getenv("GLOO_SOCKET_IFNAME");
    if (interface != nullptr && *interface != '\0')
      options->devices = {c10d::ProcessGroupGloo::createDeviceForInterface(interface)};
    else if (place.local_ranks == place.ranks)
      options->devices = {c10d::ProcessGroupGloo::createDeviceForHostname("127.0.0.1")};
    else
      options->devices = {c10d::ProcessGroupGloo::createDefaultDevice()};
    return c10::make_intrusive<c10d::ProcessGroupGloo>(store, static_cast<int>(place.rank),
                                                       static_cast<int>(place.ranks), options);
  } catch (const std::exception& e) {
    throw Error(
        fmt::format("rank {} of {}: no connection to the other ranks: {}; GLOO_SOCKET_IFNAME names the "
                    "network interface to use",
                    place.rank, place.ranks, first_line(e)));
  }
}

}  // namespace blt
