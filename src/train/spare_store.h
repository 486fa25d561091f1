// Where ranks meet when the store is lost.
#pragma once

#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <cstdint>
#include <string>

#include "blt/train/rendezvous.h"

namespace blt {

// Who keeps the store may be what has failed, and all ranks see that at once. The last rank, which is most often on another machine than the
// first, keeps a second store, to which nobody connects before: in it they find out who says so. Thread-safe.
class SpareStore {
 public:
  // Keeps it. Throws what c10d throws.
  explicit SpareStore(const RankPlace& place);
  // Of the other ranks: where it is, as address() said.
  SpareStore(const RankPlace& place, const std::string& address);

  std::string address() const;
  // Whether this rank is the first of those that come here with the same `what`, or the spare cannot be reached within seconds.
  bool claim(const std::string& what);
  // Who keeps it stays until the others have been here, for seconds at most.
  void linger();

 private:
  int64_t rank_;
  int64_t visitors_ = 0;  // of the one that keeps it
  std::string host_;
  uint16_t port_ = 0;
  c10::intrusive_ptr<c10d::TCPStore> server_;  // null: elsewhere
};

}  // namespace blt
