#include "blt/batch.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/repeat_interleave.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <limits>
#include <utility>

namespace blt {
namespace {

// The least and the largest distance between neighbours; {1, 0} where there are none.
struct Steps {
  int64_t least = 1, largest = 0;
};
template <class T>
Steps steps(const T* values, int64_t count) {
  if (count < 2) return {};
  Steps result{std::numeric_limits<int64_t>::max(), std::numeric_limits<int64_t>::min()};
  for (int64_t i = 1; i < count; ++i) {
    const int64_t step = static_cast<int64_t>(values[i]) - values[i - 1];
    result.least = std::min(result.least, step);
    result.largest = std::max(result.largest, step);
  }
  return result;
}

at::Tensor empty_ints(int64_t size) { return at::empty({size}, at::kInt); }

// Over checked or computed offsets: [count + 1] int32 in host memory, the first of them 0.
Segments segments_over(at::Tensor offsets, bool allow_empty) {
  const int32_t* o = offsets.const_data_ptr<int32_t>();
  Segments result;
  result.count = offsets.numel() - 1;
  result.total = o[result.count];
  const Steps lengths = steps(o, offsets.numel());
  result.longest = lengths.largest;
  const int64_t shortest = allow_empty ? 0 : 1;
  if (lengths.least < shortest)
    for (int64_t i = 0; i < result.count; ++i)
      TORCH_CHECK(static_cast<int64_t>(o[i + 1]) - o[i] >= shortest, "Segments: segment ", i, " has length ",
                  static_cast<int64_t>(o[i + 1]) - o[i]);
  result.offsets = std::move(offsets);
  return result;
}

void check_starts(const PatchedSequence& sequence) {
  const auto size = static_cast<int64_t>(sequence.ids.size());
  const std::vector<int64_t>& starts = sequence.starts;
  TORCH_CHECK(!starts.empty() && starts[0] == 0, "Batch::pack: a sequence's first patch starts at 0");
  TORCH_CHECK(starts.size() > 1 && starts[1] == 1,
              "Batch::pack: the BOS is alone in its patch, so the second patch starts at 1");
  if (steps(starts.data(), static_cast<int64_t>(starts.size())).least >= 1 && starts.back() <= size) return;
  for (size_t i = 1; i < starts.size(); ++i)
    TORCH_CHECK(starts[i] > starts[i - 1] && starts[i] <= size,
                "Batch::pack: patch starts increase and lie in [0, ", size, "], got ", starts[i], " after ",
                starts[i - 1]);
}

// The patches and the readers of sequences that lie end to end at documents.offsets.
void add_patches(const std::vector<PatchedSequence>& sequences, Batch& batch) {
  // Where the id after the last one starts a patch, that start is no patch of this batch.
  const auto num_patches = [](const PatchedSequence& s) {
    const bool next_starts_a_patch = s.starts.back() == static_cast<int64_t>(s.ids.size());
    return static_cast<int64_t>(s.starts.size()) - (next_starts_a_patch ? 1 : 0);
  };
  std::vector<int64_t> counts;
  counts.reserve(sequences.size());
  int64_t total = 0;
  for (const PatchedSequence& sequence : sequences) {
    check_starts(sequence);
    counts.push_back(num_patches(sequence));
    total += counts.back();
  }
  at::Tensor patches = empty_ints(total + 1), readers = empty_ints(total + 1);
  int32_t *patch = patches.data_ptr<int32_t>(), *reader = readers.data_ptr<int32_t>();
  const int32_t* documents = batch.documents.offsets.const_data_ptr<int32_t>();
  for (size_t d = 0; d < sequences.size(); ++d) {
    const int64_t* starts = sequences[d].starts.data();
    const auto given = static_cast<int64_t>(sequences[d].starts.size());
    for (int64_t p = 0; p < counts[d]; ++p) patch[p] = documents[d] + static_cast<int32_t>(starts[p]);
    // Latent p is complete when patch p + 1 starts, and read by ids from the one before that start on. The last latent is read by
    // nobody unless it is known that the id after the last one starts a patch.
    for (int64_t p = 0; p + 1 < given; ++p)
      reader[p] = documents[d] + static_cast<int32_t>(starts[p + 1]) - 1;
    if (given == counts[d]) reader[given - 1] = documents[d + 1];
    patch += counts[d];
    reader += counts[d];
  }
  *patch = *reader = documents[sequences.size()];
  batch.patches = segments_over(std::move(patches), /*allow_empty=*/false);
  batch.latent_documents = Segments::from_lengths(counts);
  batch.readers = segments_over(std::move(readers), /*allow_empty=*/true);
}

struct Census {
  bool in_vocabulary = true;
  int64_t special = 0;  // ids below kByteOffset
};
Census census(const int32_t* ids, int64_t count) {
  constexpr int64_t kLanes = 16;  // side by side, which compilers make vectors of
  uint32_t outside[kLanes] = {}, special[kLanes] = {};
  const auto look = [&](int32_t id, int64_t lane) {
    const auto value = static_cast<uint32_t>(id);
    outside[lane] |= value | (static_cast<uint32_t>(kVocabulary - 1) - value);  // the sign of one of them
    special[lane] += static_cast<uint32_t>(id < kByteOffset);
  };
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    for (int64_t lane = 0; lane < kLanes; ++lane) look(ids[i + lane], lane);
  for (; i < count; ++i) look(ids[i], 0);
  Census result;
  for (int64_t lane = 0; lane < kLanes; ++lane) {
    result.in_vocabulary = result.in_vocabulary && outside[lane] >> 31 == 0;
    result.special += special[lane];
  }
  return result;
}

// Copies a sequence's ids; returns how many of them are bytes.
int64_t copy_ids(const std::vector<int32_t>& ids, int32_t* to) {
  TORCH_CHECK(!ids.empty() && ids[0] == kBos, "Batch::pack: a sequence starts with BOS");
  const Census found = census(ids.data(), static_cast<int64_t>(ids.size()));
  if (!found.in_vocabulary)
    for (const int32_t id : ids)
      TORCH_CHECK(id >= 0 && id < kVocabulary, "Batch::pack: id ", id, " is not in the vocabulary of ",
                  kVocabulary);
  std::copy(ids.begin(), ids.end(), to);
  return static_cast<int64_t>(ids.size()) - found.special;
}

Batch pack_ids(const std::vector<PatchedSequence>& sequences) {
  std::vector<int64_t> lengths;
  lengths.reserve(sequences.size());
  for (const PatchedSequence& sequence : sequences)
    lengths.push_back(static_cast<int64_t>(sequence.ids.size()));
  Batch batch;
  batch.places.reserve(sequences.size());
  for (const PatchedSequence& sequence : sequences) batch.places.push_back(sequence.place);
  batch.documents = Segments::from_lengths(lengths, /*allow_empty=*/true);
  batch.bytes = empty_ints(batch.documents.total);
  batch.targets = empty_ints(batch.documents.total);
  int32_t *ids = batch.bytes.data_ptr<int32_t>(), *targets = batch.targets.data_ptr<int32_t>();
  for (const PatchedSequence& sequence : sequences) {
    const auto size = static_cast<int64_t>(sequence.ids.size());
    const int64_t bytes = copy_ids(sequence.ids, ids);
    if (sequence.targets.empty()) {
      std::copy(ids + 1, ids + size, targets);
      targets[size - 1] = kIgnore;
      batch.num_targets += size - 1;
      batch.num_byte_targets += bytes;  // the BOS is nobody's target
    } else {
      TORCH_CHECK(sequence.targets.size() == sequence.ids.size(), "Batch::pack: ", sequence.ids.size(),
                  " ids but ", sequence.targets.size(), " targets");
      std::copy(sequence.targets.begin(), sequence.targets.end(), targets);
      batch.num_targets += std::count_if(targets, targets + size, [](int32_t id) { return id != kIgnore; });
      batch.num_byte_targets +=
          std::count_if(targets, targets + size, [](int32_t id) { return id >= kByteOffset; });
    }
    ids += size;
    targets += size;
  }
  return batch;
}

}  // namespace

Segments Segments::from_lengths(const std::vector<int64_t>& lengths, bool allow_empty) {
  at::Tensor offsets = empty_ints(static_cast<int64_t>(lengths.size()) + 1);
  int32_t* o = offsets.data_ptr<int32_t>();
  int64_t total = 0;
  *o = 0;
  for (size_t i = 0; i < lengths.size(); ++i) {
    TORCH_CHECK(lengths[i] >= 0, "Segments: segment ", i, " has length ", lengths[i]);
    total += lengths[i];
    TORCH_CHECK(total <= std::numeric_limits<int32_t>::max(), "Segments: more than 2^31 - 1 things in a row");
    *++o = static_cast<int32_t>(total);
  }
  return segments_over(std::move(offsets), allow_empty);
}

Segments Segments::from_offsets(const at::Tensor& offsets, bool allow_empty) {
  TORCH_CHECK(offsets.dim() == 1 && offsets.scalar_type() == at::kInt && offsets.numel() >= 1,
              "Segments: offsets must be [count + 1] int32, got ", offsets.scalar_type(), " ",
              offsets.sizes());
  at::Tensor host = offsets.cpu().contiguous();
  const int32_t first = *host.const_data_ptr<int32_t>();
  TORCH_CHECK(first == 0, "Segments: offsets start at 0, got ", first);
  Segments result = segments_over(std::move(host), allow_empty);
  result.offsets = offsets.contiguous();
  return result;
}

Segments Segments::uniform(int64_t count, int64_t length, at::Device device) {
  TORCH_CHECK(count >= 0 && length > 0, "Segments: ", count, " segments of length ", length);
  TORCH_CHECK(count * length <= std::numeric_limits<int32_t>::max(),
              "Segments: more than 2^31 - 1 things in a row");
  Segments result;
  result.offsets =
      at::arange(0, count * length + 1, length, at::TensorOptions().dtype(at::kInt).device(device));
  result.count = count;
  result.longest = count == 0 ? 0 : length;
  result.total = count * length;
  return result;
}

at::Tensor Segments::ids() const {
  if (offsets.is_meta())
    return at::empty({total}, offsets.options());  // repeat_interleave would look at lengths
  const at::Tensor lengths = offsets.diff();
  return at::repeat_interleave(at::arange(count, offsets.options()), lengths, 0, total).to(at::kInt);
}

at::Tensor Segments::positions() const {
  if (offsets.is_meta()) return at::empty({total}, offsets.options());
  const at::Tensor starts = offsets.slice(0, 0, count).repeat_interleave(offsets.diff(), 0, total);
  return at::arange(total, offsets.options()).sub_(starts);
}

Segments Segments::to(at::Device device) const {
  Segments result = *this;
  if (offsets.defined()) result.offsets = offsets.to(device, /*non_blocking=*/true);
  return result;
}

Batch Batch::to(at::Device device) const {
  Batch result = *this;
  result.bytes = bytes.to(device, /*non_blocking=*/true);
  result.targets = targets.to(device, /*non_blocking=*/true);
  result.documents = documents.to(device);
  result.patches = patches.to(device);
  result.latent_documents = latent_documents.to(device);
  result.readers = readers.to(device);
  result.text_documents = text_documents.to(device);
  return result;
}

Batch Batch::pack(const std::vector<PatchedSequence>& sequences) {
  Batch batch = pack_ids(sequences);
  add_patches(sequences, batch);
  return batch;
}

Batch Batch::pack_bytes(const std::vector<PatchedSequence>& sequences) { return pack_ids(sequences); }

}  // namespace blt
