#include "blt/data/sequence.h"

#include "blt/batch.h"

namespace blt {

std::vector<int32_t> Sequence::ids(bool eos) const {
  const bool ends = eos && ends_document;
  std::vector<int32_t> result(bytes.size() + (ends ? 2 : 1));
  result.front() = kBos;
  for (size_t i = 0; i < bytes.size(); ++i)
    result[i + 1] = static_cast<unsigned char>(bytes[i]) + kByteOffset;
  if (ends) result.back() = kEos;
  return result;
}

}  // namespace blt
