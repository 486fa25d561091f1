#include "blt/data/filled_batch.h"

#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <utility>

#include "data/pieces.h"

namespace blt {
namespace {

// Part i of `total` in `parts` parts that differ by at most one, larger ones first.
int64_t share(int64_t total, int64_t parts, int64_t i) { return total / parts + (i < total % parts ? 1 : 0); }

// patches: 0 for bytes alone.
PatchedSequence filler(int64_t ids, int64_t patches) {
  PatchedSequence result;
  result.ids.assign(static_cast<size_t>(ids), kBoe);
  result.ids[0] = kBos;
  result.targets.assign(static_cast<size_t>(ids), kIgnore);
  if (patches == 0) return result;
  result.starts = {0};
  int64_t start = 1;
  for (int64_t p = 0; p < patches - 1; ++p) {
    result.starts.push_back(start);
    start += share(ids - 1, patches - 1, p);
  }
  return result;
}

}  // namespace

int64_t FilledSizes::least_filler() const { return (ids + sequence_ids - 1) / sequence_ids; }

std::string FilledSizes::problem() const {
  if (sequences <= least_filler())
    return fmt::format("{} sequences are too few: {} of them are for filler; give at least {}", sequences,
                       least_filler(), least_filler() + 1);
  if (patches == 0) {
    if (ids <= sequences) return fmt::format("{} ids are too few for {} sequences", ids, sequences);
    return "";
  }
  if (patches < 2 * sequences)
    return fmt::format("{} patches are too few for {} sequences, each of which has at least 2", patches,
                       sequences);
  if (ids - patches < sequence_ids - 2)
    return fmt::format("{} ids are too few for {} patches and one that is as long as a sequence, {}", ids,
                       patches, sequence_ids - 1);
  return "";
}

FilledRoom::FilledRoom(const FilledSizes& sizes)
    : patched_(sizes.patches > 0),
      sequences_(sizes.sequences - sizes.least_filler()),
      ids_(sizes.ids - (patched_ ? sizes.patches : sizes.sequences)),
      patches_(patched_ ? sizes.patches - 2 * sizes.sequences : 0) {
  const std::string problem = sizes.problem();
  TORCH_CHECK(problem.empty(), "FilledRoom: ", problem);
}

FilledRoom::Needs FilledRoom::needs(int64_t ids, int64_t patches) const {
  return patched_ ? Needs{ids - patches, patches - 2} : Needs{ids - 1, 0};
}

bool FilledRoom::fits(int64_t ids, int64_t patches) const {
  const Needs more = needs(ids, patches);
  return sequences_ >= 1 && more.ids <= ids_ && more.patches <= patches_;
}

void FilledRoom::take(int64_t ids, int64_t patches) {
  TORCH_INTERNAL_ASSERT(fits(ids, patches));
  const Needs more = needs(ids, patches);
  sequences_ -= 1;
  ids_ -= more.ids;
  patches_ -= more.patches;
}

Batch fill_batch(std::vector<PatchedSequence> sequences, const FilledSizes& sizes) {
  const bool patched = sizes.patches > 0;
  FilledRoom room(sizes);
  int64_t ids = sizes.ids, patches = sizes.patches;
  std::vector<int64_t> lengths;  // of the text
  for (const PatchedSequence& sequence : sequences) {
    const auto own_ids = static_cast<int64_t>(sequence.ids.size());
    const int64_t own_patches = patched ? num_pieces(sequence) : 0;
    TORCH_CHECK(room.fits(own_ids, own_patches) && own_ids <= sizes.sequence_ids,
                "fill_batch: these sequences leave no room for filler");
    room.take(own_ids, own_patches);
    ids -= own_ids;
    patches -= own_patches;
    lengths.push_back(own_ids);
  }
  const auto count = static_cast<int64_t>(sequences.size());
  const int64_t num_filler = sizes.sequences - count;
  for (int64_t i = 0; i < num_filler; ++i)
    sequences.push_back(filler(share(ids, num_filler, i), share(patches, num_filler, i)));
  Batch batch = patched ? Batch::pack(sequences) : Batch::pack_bytes(sequences);
  TORCH_INTERNAL_ASSERT(batch.documents.total == sizes.ids && batch.patches.count == sizes.patches);
  lengths.resize(static_cast<size_t>(sizes.sequences));
  batch.text_documents = Segments::from_lengths(lengths, /*allow_empty=*/true);
  batch.num_filler_documents = num_filler;
  batch.num_filler_patches = patches;
  // Whatever the text, and no less than what validation has.
  batch.documents.longest = batch.text_documents.longest = sizes.sequence_ids;
  if (patched) {
    batch.patches.longest = batch.readers.longest = sizes.sequence_ids - 1;  // the BOS is alone
    batch.latent_documents.longest = sizes.sequence_ids;                     // patches of one id
  }
  return batch;
}

}  // namespace blt
