// The store in which ranks meet.
#pragma once

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

namespace blt {

struct TcpStorePlace {
  std::string host = "127.0.0.1";
  uint16_t port = 0;  // 0, with is_server: any that is free
  bool is_server = false;
  std::chrono::milliseconds timeout = c10d::Store::kDefaultTimeout;
};

// Returns when the server, this process or another, has been reached. Throws what c10d throws.
inline c10::intrusive_ptr<c10d::TCPStore> tcp_store(const TcpStorePlace& place) {
  c10d::TCPStoreOptions options;
  options.port = place.port;
  options.isServer = place.is_server;
  options.waitWorkers = false;
  options.timeout = place.timeout;
  return c10::make_intrusive<c10d::TCPStore>(place.host, options);
}

// What the ranks of one start of one job see of the store, and its launcher too. Nothing that an earlier start left in it, or another job.
inline c10::intrusive_ptr<c10d::Store> store_of_start(const c10::intrusive_ptr<c10d::TCPStore>& store,
                                                      const std::string& job = "", int64_t attempt = 0) {
  return c10::make_intrusive<c10d::PrefixStore>("blt/job/" + job + "/attempt/" + std::to_string(attempt),
                                                store);
}

// For whoever runs a server. It looks up the names of all that connect, which nobody needs: a name server that does not answer holds them for a
// second each after this, not for ten. Unless the user has said otherwise. Changes the environment: while there is one thread.
inline void wait_little_for_names() { setenv("RES_OPTIONS", "timeout:1 attempts:1", /*overwrite=*/0); }

}  // namespace blt
