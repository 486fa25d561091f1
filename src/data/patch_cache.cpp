#include <cstring>

#include "blt/data/patch_stage.h"

namespace blt {
namespace {

// Two lanes that each multiply and fold 64 bits at a time (as wyhash does), over different constants.
uint64_t fold(uint64_t a, uint64_t b) {
  const auto product = static_cast<unsigned __int128>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

constexpr int64_t kEntryBytes = 96;  // of a map node, roughly

}  // namespace

PatchCache::Key PatchCache::key_of(const std::vector<int32_t>& ids) {
  Key key{0x9e3779b97f4a7c15u ^ ids.size(), 0xd1b54a32d192ed03u + ids.size()};
  for (size_t i = 0; i < ids.size(); i += 2) {
    const uint64_t word = static_cast<uint64_t>(static_cast<uint32_t>(ids[i])) << 32 |
                          static_cast<uint32_t>(i + 1 < ids.size() ? ids[i + 1] : -1);
    key[0] = fold(key[0] ^ word, 0xa0761d6478bd642fu);
    key[1] = fold(key[1] + word, 0xe7037ed1a0b428dbu) + 0x8ebc6af09c88c6e3u;
  }
  return key;
}

std::optional<std::vector<int64_t>> PatchCache::find(const std::vector<int32_t>& ids) const {
  const auto found = starts_.find(key_of(ids));
  if (found == starts_.end()) return std::nullopt;
  return std::vector<int64_t>(found->second.begin(), found->second.end());
}

void PatchCache::add(const std::vector<int32_t>& ids, const std::vector<int64_t>& starts) {
  const auto size = static_cast<int64_t>(starts.size() * sizeof(uint32_t)) + kEntryBytes;
  if (bytes_ + size > max_bytes_) return;
  if (starts_.emplace(key_of(ids), std::vector<uint32_t>(starts.begin(), starts.end())).second)
    bytes_ += size;
}

}  // namespace blt
