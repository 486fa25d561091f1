// Runs a fuzzer without libFuzzer: over the files of folders, then over random changes of them, for so many seconds.
//
//   fuzz_json_lines_replay SECONDS FOLDER...
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <vector>

#include "blt/base/rng.h"
#include "fuzz.h"

namespace {

using Bytes = std::vector<uint8_t>;

Bytes changed(Bytes bytes, const std::vector<Bytes>& corpus, blt::Rng& rng) {
  for (uint64_t changes = 1 + rng.below(6); changes > 0; --changes) {
    const size_t at = rng.below(bytes.size() + 1);
    switch (rng.below(5)) {
      case 0:
        if (at < bytes.size()) bytes[at] = static_cast<uint8_t>(rng.below(256));
        break;
      case 1:
        bytes.insert(bytes.begin() + static_cast<std::ptrdiff_t>(at),
                     static_cast<uint8_t>("{}[]\":,\\u\n\0\xff"[rng.below(12)]));
        break;
      case 2:
        bytes.resize(at);
        break;
      case 3:
        bytes.erase(bytes.begin() + static_cast<std::ptrdiff_t>(at),
                    bytes.begin() + static_cast<std::ptrdiff_t>(at + rng.below(bytes.size() - at + 1)));
        break;
      default: {  // a piece of another
        const Bytes& other = corpus[rng.below(corpus.size())];
        const size_t begin = rng.below(other.size() + 1), end = begin + rng.below(other.size() - begin + 1);
        bytes.insert(bytes.begin() + static_cast<std::ptrdiff_t>(at),
                     other.begin() + static_cast<std::ptrdiff_t>(begin),
                     other.begin() + static_cast<std::ptrdiff_t>(end));
      }
    }
  }
  return bytes;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: %s SECONDS FOLDER...\n", argv[0]);
    return 2;
  }
  std::vector<Bytes> corpus;
  for (int i = 2; i < argc; ++i)
    for (const auto& entry : std::filesystem::directory_iterator(argv[i])) {
      std::ifstream file(entry.path(), std::ios::binary);
      corpus.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    }
  blt_fuzz::require(!corpus.empty(), "there is a corpus");
  for (const Bytes& bytes : corpus) LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(std::atof(argv[1]));
  blt::Rng rng(1, "fuzz");
  size_t runs = corpus.size();
  for (; std::chrono::steady_clock::now() < end; ++runs) {
    const Bytes bytes = changed(corpus[rng.below(corpus.size())], corpus, rng);
    LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
  }
  std::printf("%zu runs\n", runs);
  return 0;
}
