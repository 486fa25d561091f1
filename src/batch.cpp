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

at::Tensor int32_tensor(const std::vector<int32_t>& values) {
  at::Tensor result = at::empty({static_cast<int64_t>(values.size())}, at::kInt);
  std::copy(values.begin(), values.end(), result.data_ptr<int32_t>());
  return result;
}

// The lengths of patches and readers, and the patches of each sequence.
struct PatchLists {
  std::vector<int64_t> patch_lengths, reader_lengths, patches_per_document;

  explicit PatchLists(const std::vector<PatchedSequence>& sequences) {
    size_t most = 0;
    for (const PatchedSequence& sequence : sequences) most += sequence.starts.size();
    patch_lengths.reserve(most);
    reader_lengths.reserve(most);
    for (const PatchedSequence& sequence : sequences) append(sequence);
  }

 private:
  void append(const PatchedSequence& sequence) {
    const auto size = static_cast<int64_t>(sequence.ids.size());
    const std::vector<int64_t>& starts = sequence.starts;
    TORCH_CHECK(!starts.empty() && starts[0] == 0, "Batch::pack: a sequence's first patch starts at 0");
    TORCH_CHECK(starts.size() > 1 && starts[1] == 1,
                "Batch::pack: the BOS is alone in its patch, so the second patch starts at 1");
    for (size_t i = 1; i < starts.size(); ++i)
      TORCH_CHECK(starts[i] > starts[i - 1] && starts[i] <= size,
                  "Batch::pack: patch starts increase and lie in [0, ", size, "], got ", starts[i], " after ",
                  starts[i - 1]);
    const bool next_id_starts_a_patch = starts.back() == size;
    const int64_t num_patches = static_cast<int64_t>(starts.size()) - (next_id_starts_a_patch ? 1 : 0);
    // Latent p is complete when patch p + 1 starts; ids whose next id lies in patch p + 1 read it: those in
    // [starts[p + 1] - 1, starts[p + 2] - 1). The last id's next id belongs to the last patch unless it starts one.
    for (int64_t p = 0; p + 2 < num_patches; ++p) {
      patch_lengths.push_back(starts[p + 1] - starts[p]);
      reader_lengths.push_back(starts[p + 2] - starts[p + 1]);
    }
    for (int64_t p = std::max<int64_t>(num_patches - 2, 0); p < num_patches; ++p) {
      const int64_t end = p + 1 < num_patches ? starts[p + 1] : size;
      const bool is_last = p + 1 == num_patches;
      const int64_t first = is_last && !next_id_starts_a_patch ? size : end - 1;
      const int64_t last = !is_last && next_id_starts_a_patch ? size - 1 : size;
      patch_lengths.push_back(end - starts[p]);
      reader_lengths.push_back(last - first);
    }
    patches_per_document.push_back(num_patches);
  }
};

Batch pack_ids(const std::vector<PatchedSequence>& sequences) {
  std::vector<int64_t> lengths;
  int64_t total = 0;
  for (const PatchedSequence& sequence : sequences) {
    lengths.push_back(static_cast<int64_t>(sequence.ids.size()));
    total += lengths.back();
  }
  Batch batch;
  batch.bytes = at::empty({total}, at::kInt);
  batch.targets = at::empty({total}, at::kInt);
  int32_t *ids = batch.bytes.data_ptr<int32_t>(), *targets = batch.targets.data_ptr<int32_t>();
  for (const PatchedSequence& sequence : sequences) {
    TORCH_CHECK(!sequence.ids.empty() && sequence.ids[0] == kBos, "Batch::pack: a sequence starts with BOS");
    uint32_t largest = 0;  // negative ones are very large
    for (const int32_t id : sequence.ids) largest = std::max(largest, static_cast<uint32_t>(id));
    TORCH_CHECK(largest < kVocabulary, "Batch::pack: id ", static_cast<int32_t>(largest),
                " is not in the vocabulary of ", kVocabulary);
    ids = std::copy(sequence.ids.begin(), sequence.ids.end(), ids);
    if (sequence.targets.empty()) {
      targets = std::copy(sequence.ids.begin() + 1, sequence.ids.end(), targets);
      *targets++ = kIgnore;
    } else {
      TORCH_CHECK(sequence.targets.size() == sequence.ids.size(), "Batch::pack: ", sequence.ids.size(),
                  " ids but ", sequence.targets.size(), " targets");
      targets = std::copy(sequence.targets.begin(), sequence.targets.end(), targets);
    }
  }
  batch.documents = Segments::from_lengths(lengths);
  const int32_t* first = batch.targets.const_data_ptr<int32_t>();
  batch.num_targets = std::count_if(first, first + total, [](int32_t id) { return id != kIgnore; });
  batch.num_byte_targets = std::count_if(first, first + total, [](int32_t id) { return id >= kByteOffset; });
  return batch;
}

}  // namespace

Segments Segments::from_lengths(const std::vector<int64_t>& lengths, bool allow_empty) {
  Segments result;
  std::vector<int32_t> offsets{0};
  offsets.reserve(lengths.size() + 1);
  for (const int64_t length : lengths) {
    TORCH_CHECK(length > 0 || (allow_empty && length == 0), "Segments: segment ", result.count,
                " has length ", length);
    result.total += length;
    TORCH_CHECK(result.total <= std::numeric_limits<int32_t>::max(),
                "Segments: more than 2^31 - 1 things in a row");
    offsets.push_back(static_cast<int32_t>(result.total));
    result.longest = std::max(result.longest, length);
    ++result.count;
  }
  result.offsets = int32_tensor(offsets);
  return result;
}

Segments Segments::from_offsets(const at::Tensor& offsets, bool allow_empty) {
  TORCH_CHECK(offsets.dim() == 1 && offsets.scalar_type() == at::kInt && offsets.numel() >= 1,
              "Segments: offsets must be [count + 1] int32, got ", offsets.scalar_type(), " ",
              offsets.sizes());
  const at::Tensor host = offsets.cpu().contiguous();
  const int32_t* o = host.const_data_ptr<int32_t>();
  TORCH_CHECK(o[0] == 0, "Segments: offsets start at 0, got ", o[0]);
  std::vector<int64_t> lengths;
  for (int64_t i = 1; i < host.numel(); ++i) lengths.push_back(static_cast<int64_t>(o[i]) - o[i - 1]);
  Segments result = from_lengths(lengths, allow_empty);
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
  const at::Tensor lengths = offsets.diff();
  return at::repeat_interleave(at::arange(count, offsets.options()), lengths, 0, total).to(at::kInt);
}

at::Tensor Segments::positions() const {
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
  return result;
}

Batch Batch::pack(const std::vector<PatchedSequence>& sequences) {
  Batch batch = pack_ids(sequences);
  const PatchLists lists(sequences);
  batch.patches = Segments::from_lengths(lists.patch_lengths);
  batch.latent_documents = Segments::from_lengths(lists.patches_per_document);
  batch.readers = Segments::from_lengths(lists.reader_lengths, /*allow_empty=*/true);
  TORCH_INTERNAL_ASSERT(batch.patches.total == batch.documents.total &&
                        batch.readers.total == batch.documents.total);
  return batch;
}

Batch Batch::pack_bytes(const std::vector<PatchedSequence>& sequences) { return pack_ids(sequences); }

}  // namespace blt
