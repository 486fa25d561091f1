#include "blt/data/pack.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "blt/base/error.h"
#include "data/pieces.h"

namespace blt {
namespace {

// Text bytes in pieces [begin, end) of a sequence: the first id is a BOS, the last one may be an EOS.
int64_t text_bytes(const PatchedSequence& sequence, int64_t begin, int64_t end) {
  const int64_t first = std::max<int64_t>(piece_start(sequence, begin), 1), last = piece_start(sequence, end);
  const bool eos =
      last == static_cast<int64_t>(sequence.ids.size()) && last > 1 && sequence.ids.back() < kByteOffset;
  return std::max<int64_t>(last - first - (eos ? 1 : 0), 0);
}

// The end of the longest run of pieces from `begin` on that fits(end); `begin` where none does. A run that does not fit has none longer that does.
template <class Fits>
int64_t longest_run(const PatchedSequence& sequence, int64_t begin, const Fits& fits) {
  int64_t low = begin, high = num_pieces(sequence);
  if (fits(high)) return high;  // as most do
  while (low < high) {
    const int64_t middle = low + (high - low + 1) / 2;
    if (fits(middle))
      low = middle;
    else
      high = middle - 1;
  }
  return low;
}

}  // namespace

Pack::Pack(std::unique_ptr<Stage<PatchedSequence>> input, Options options,
           std::shared_ptr<LoaderMetrics> metrics)
    : input_(std::move(input)), options_(options), metrics_(std::move(metrics)) {
  TORCH_CHECK(options_.bytes || options_.patches || options_.filled, "Pack: there is no budget");
  TORCH_CHECK(!options_.filled || (options_.cut && (options_.filled->patches > 0) == options_.patched),
              "Pack: batches that are filled cut sequences, and have patches or not");
  TORCH_CHECK(!options_.patches || (options_.patched && *options_.patches >= 2),
              "Pack: a budget in patches is at least 2, and only for batches with patches");
}

std::optional<Batch> Pack::next() {
  std::vector<PatchedSequence> sequences = options_.filled ? fill_room() : fill();
  if (sequences.empty()) return std::nullopt;
  const auto pack = [&] {
    if (options_.filled) return fill_batch(std::move(sequences), *options_.filled);
    return options_.patched ? Batch::pack(sequences) : Batch::pack_bytes(sequences);
  };
  if (!metrics_) return pack();
  int64_t bytes = 0, pieces = 0, ids = 0;
  for (const PatchedSequence& sequence : sequences) {
    bytes += text_bytes(sequence, 0, num_pieces(sequence));
    pieces += num_pieces(sequence);
    ids += static_cast<int64_t>(sequence.ids.size());
  }
  ++metrics_->batches;
  metrics_->unused_millionths += static_cast<int64_t>(1e6 * std::max(0.0, 1.0 - used(bytes, pieces, ids)));
  return LoaderMetrics::measure(metrics_.get(), &LoaderMetrics::pack, bytes, pack);
}

// The share of the budget that came nearest to its end.
double Pack::used(int64_t bytes, int64_t patches, int64_t ids) const {
  const auto share = [](int64_t part, int64_t of) {
    return static_cast<double>(part) / static_cast<double>(of);
  };
  if (options_.filled)
    return std::max(share(ids, options_.filled->ids),
                    options_.patched ? share(patches, options_.filled->patches) : 0.0);
  return std::max(options_.bytes ? share(bytes, *options_.bytes) : 0.0,
                  options_.patches ? share(patches, *options_.patches) : 0.0);
}

bool Pack::pull() {
  pending_input_ = StateWriter();
  input_->save(pending_input_);
  pending_ = input_->next();
  pending_pieces_ = 0;
  return pending_.has_value();
}

std::vector<PatchedSequence> Pack::fill() {
  constexpr int64_t kNoLimit = std::numeric_limits<int64_t>::max();
  std::vector<PatchedSequence> result;
  int64_t room_bytes = options_.bytes.value_or(kNoLimit), room_patches = options_.patches.value_or(kNoLimit);
  // A BOS alone is no use: two patches, one byte.
  while (room_patches >= 2 && room_bytes >= 1 && (pending_ || pull())) {
    const int64_t begin = pending_pieces_, count = num_pieces(*pending_);
    const int64_t own_bos = begin > 0 ? 1 : 0;  // a tail's, which is not the sequence's
    int64_t end = longest_run(*pending_, begin,
                              [&](int64_t last) { return text_bytes(*pending_, begin, last) <= room_bytes; });
    if (room_patches != kNoLimit) end = std::min(end, begin + room_patches - own_bos);
    if (end < count && options_.cut && result.empty())
      end = std::max(end, begin + 2 - own_bos);  // a patch above the budget
    if (end < count && !options_.cut && result.empty()) end = count;
    if (end < count && (!options_.cut || end + own_bos < begin + 2)) break;
    room_bytes -= text_bytes(*pending_, begin, end);
    room_patches -= end - begin + own_bos;
    result.push_back(hand_out(end));
    if (pending_) break;
  }
  return result;
}

// The same for batches that filler makes up: the first sequence always fits, or a piece of it (FilledSizes::problem).
std::vector<PatchedSequence> Pack::fill_room() {
  std::vector<PatchedSequence> result;
  FilledRoom room(*options_.filled);
  constexpr int64_t kLeast = 2;  // pieces: a BOS alone is no use
  while (room.fits(kLeast, options_.patched ? kLeast : 0) && (pending_ || pull())) {
    const int64_t begin = pending_pieces_, count = num_pieces(*pending_);
    const int64_t own_bos = begin > 0 ? 1 : 0;
    const auto ids = [&](int64_t end) {
      return piece_start(*pending_, end) - piece_start(*pending_, begin) + own_bos;
    };
    const auto patches = [&](int64_t end) { return options_.patched ? end - begin + own_bos : 0; };
    const auto fits = [&](int64_t end) { return room.fits(ids(end), patches(end)); };
    const int64_t end = longest_run(*pending_, begin, fits);
    if (end < count && end + own_bos < begin + kLeast) break;
    room.take(ids(end), patches(end));
    result.push_back(hand_out(end));
    if (pending_) break;
  }
  TORCH_INTERNAL_ASSERT(!result.empty() || !pending_);
  return result;
}

// The pieces of pending_ up to `end` that were not handed out yet; pending_ stays where there are more.
PatchedSequence Pack::hand_out(int64_t end) {
  const int64_t begin = pending_pieces_;
  if (end < num_pieces(*pending_)) {
    pending_pieces_ = end;
    PatchedSequence first = head(*pending_, end);
    return begin > 0 ? tail(first, begin) : std::move(first);
  }
  PatchedSequence rest = begin > 0 ? tail(*pending_, begin) : std::move(*pending_);
  pending_.reset();
  return rest;
}

void Pack::save(StateWriter& out) const {
  out.put("pending", pending_ ? 1 : 0);
  out.put("pending_pieces", pending_ ? pending_pieces_ : 0);
  if (pending_) {
    out.put("input", pending_input_);
  } else {
    StateWriter input = out.section("input");
    input_->save(input);
  }
}

void Pack::load(const StateReader& in) {
  input_->load(in.section("input"));
  pending_.reset();
  if (in.integer("pending") == 0) return;
  const int64_t pieces = in.integer("pending_pieces");
  if (!pull() || (pieces > 0 && pieces >= num_pieces(*pending_)))
    throw Error("the data is no longer what it was when this state was saved: a sequence became shorter");
  pending_pieces_ = pieces;
}

}  // namespace blt
