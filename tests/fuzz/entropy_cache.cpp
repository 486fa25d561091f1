// Reads the entropy cache: files of any bytes give no entropies but those that a writer wrote.
#include <cstring>
#include <vector>

#include "blt/base/files.h"
#include "data/cache_shard.h"
#include "fuzz.h"

namespace {

std::vector<float> entropies_of(uint64_t number) {
  std::vector<float> result(3 + number % 5);
  for (size_t i = 0; i < result.size(); ++i)
    result[i] = static_cast<float>(number) + 0.25f * static_cast<float>(i);
  return result;
}
blt::EntropyKey key_of(uint64_t number) { return {{number * 0x9e3779b97f4a7c15u, number}}; }

// A shard of four records, as a writer leaves it.
const std::string& written(bool index) {
  static const auto files = [] {
    const auto shard = blt::CacheShard::create(blt_fuzz::folder() / "written.entropies");
    for (uint64_t i = 0; i < 4; ++i) shard->append(key_of(i), entropies_of(i));
    shard->seal();
    return std::pair(blt::read_file(blt_fuzz::folder() / "written.entropies"),
                     blt::read_file(blt_fuzz::folder() / "written.index"));
  }();
  return index ? files.second : files.first;
}

}  // namespace

// The first byte chooses what is damaged; then come (place, new byte) pairs for a shard or index that a writer wrote, or a whole file.
int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  std::string shard = written(false), index = written(true);
  const uint8_t what = data[0] % 4;
  std::string& changed = what % 2 == 0 ? shard : index;
  if (what < 2) {
    for (size_t i = 1; i + 2 < size; i += 3)
      changed[(data[i] | data[i + 1] << 8) % changed.size()] = static_cast<char>(data[i + 2]);
    if (size % 3 == 2) changed.resize(changed.size() * data[size - 1] / 255);
  } else {
    changed.assign(reinterpret_cast<const char*>(data) + 1, size - 1);
  }
  blt_fuzz::write("read.entropies", shard);
  blt_fuzz::write("read.index", index);
  const auto reader = blt::CacheShard::open(blt_fuzz::folder() / "read.entropies");
  blt_fuzz::require(reader != nullptr, "a file that is there can be opened");
  std::vector<std::pair<blt::EntropyKey, uint64_t>> found;
  reader->scan([&](const blt::EntropyKey& key, uint64_t offset) { found.emplace_back(key, offset); });
  for (const auto& [key, offset] : found)
    for (uint64_t number = 0; number < 4; ++number) {
      if (key != key_of(number)) continue;
      const std::vector<float> expected = entropies_of(number);
      const auto entropies = reader->read(offset, key, expected.size());
      blt_fuzz::require(
          !entropies || std::memcmp(entropies->data(), expected.data(), expected.size() * sizeof(float)) == 0,
          "entropies are those that were written, or none");
    }
  return 0;
}
