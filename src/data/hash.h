// XXH3, a fast hash that is not cryptographic, by its own library.
#pragma once

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

#include "blt/data/entropy_cache.h"

namespace blt {

struct FreeHash {
  void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
};

// Takes bytes piece by piece. Not thread-safe.
class Hash128 {
 public:
  Hash128() : state_(XXH3_createState()) {
    if (!state_) throw std::bad_alloc();
    XXH3_128bits_reset(state_.get());
  }
  void update(const void* data, size_t size) { XXH3_128bits_update(state_.get(), data, size); }
  // With its length, so that pieces do not run into each other.
  void update(std::string_view text) {
    const uint64_t size = text.size();
    update(&size, sizeof size);
    update(text.data(), size);
  }
  EntropyKey digest() const {
    const XXH128_hash_t hash = XXH3_128bits_digest(state_.get());
    return {{hash.low64, hash.high64}};
  }

 private:
  std::unique_ptr<XXH3_state_t, FreeHash> state_;
};

// The same with 64 bits: what checksum() gives of all pieces together.
class Hash64 {
 public:
  Hash64() : state_(XXH3_createState()) {
    if (!state_) throw std::bad_alloc();
    XXH3_64bits_reset(state_.get());
  }
  void update(const void* data, size_t size) { XXH3_64bits_update(state_.get(), data, size); }
  uint64_t digest() const { return XXH3_64bits_digest(state_.get()); }

 private:
  std::unique_ptr<XXH3_state_t, FreeHash> state_;
};

inline uint64_t checksum(const void* data, size_t size, uint64_t seed = 0) {
  return XXH3_64bits_withSeed(data, size, seed);
}

}  // namespace blt
