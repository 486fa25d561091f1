#include "data/pieces.h"

namespace blt {

PatchedSequence head(const PatchedSequence& sequence, int64_t pieces) {
  const int64_t end = piece_start(sequence, pieces);
  PatchedSequence result;
  result.place = sequence.place;
  result.ids.assign(sequence.ids.begin(), sequence.ids.begin() + end);
  if (!sequence.starts.empty())
    result.starts.assign(sequence.starts.begin(), sequence.starts.begin() + pieces + 1);
  if (!sequence.targets.empty()) {
    result.targets.assign(sequence.targets.begin(), sequence.targets.begin() + end);
    result.targets.back() = kIgnore;
  }
  return result;
}

PatchedSequence tail(const PatchedSequence& sequence, int64_t pieces) {
  const int64_t begin = piece_start(sequence, pieces);
  PatchedSequence result;
  result.place = sequence.place;
  result.place.offset += begin - 1;  // the BOS is no text
  result.ids.reserve(1 + sequence.ids.size() - begin);
  result.ids.push_back(kBos);
  result.ids.insert(result.ids.end(), sequence.ids.begin() + begin, sequence.ids.end());
  if (!sequence.starts.empty()) {
    result.starts = {0};
    for (size_t p = static_cast<size_t>(pieces); p < sequence.starts.size(); ++p)
      result.starts.push_back(sequence.starts[p] - begin + 1);
  }
  if (!sequence.targets.empty())
    result.targets.assign(sequence.targets.begin() + begin - 1, sequence.targets.end());
  return result;
}

}  // namespace blt
