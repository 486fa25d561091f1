#include "blt/data/sequence.h"

#include "blt/batch.h"
#include "ops/cpu/ids.h"

namespace blt {

std::vector<int32_t> Sequence::ids(bool eos) const {
  const bool ends = eos && ends_document;
  std::vector<int32_t> result(bytes.size() + (ends ? 2 : 1));
  result.front() = kBos;
  ops::ids_of_bytes(bytes, result.data() + 1);
  if (ends) result.back() = kEos;
  return result;
}

}  // namespace blt
