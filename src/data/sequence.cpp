#include "blt/data/sequence.h"

#include "blt/batch.h"

namespace blt {

std::vector<int32_t> Sequence::ids(bool eos) const {
  std::vector<int32_t> result;
  result.reserve(bytes.size() + 2);
  result.push_back(kBos);
  for (const char byte : bytes) result.push_back(static_cast<unsigned char>(byte) + kByteOffset);
  if (eos && ends_document) result.push_back(kEos);
  return result;
}

}  // namespace blt
