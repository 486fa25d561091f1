// The store in which ranks meet.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
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

}  // namespace blt
