#include "blt/data/split.h"

#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <string_view>
#include <utility>

#include "blt/base/error.h"

namespace blt {
namespace {

constexpr std::string_view kDigits = "0123456789abcdef";

// Four sequences a hexadecimal digit, the first in its lowest bit.
std::string to_text(const std::vector<bool>& done) {
  std::string text((done.size() + 3) / 4, '0');
  for (size_t i = 0; i < text.size(); ++i) {
    int digit = 0;
    for (size_t bit = 0; bit < 4 && 4 * i + bit < done.size(); ++bit)
      digit |= (done[4 * i + bit] ? 1 : 0) << bit;
    text[i] = kDigits[digit];
  }
  return text;
}
std::vector<bool> done_of(const std::string& text) {
  std::vector<bool> done;
  for (const char c : text) {
    const size_t digit = kDigits.find(c);
    if (digit == kDigits.npos) throw Error("the saved state is damaged: `done` is no hexadecimal number");
    for (int bit = 0; bit < 4; ++bit) done.push_back((digit >> bit & 1) != 0);
  }
  return done;
}

// "sequence:patches " each.
std::string to_text(const std::map<int64_t, int64_t>& parts) {
  std::string text;
  for (const auto& [sequence, patches] : parts) text += fmt::format("{}:{} ", sequence, patches);
  return text;
}
std::map<int64_t, int64_t> parts_of(const std::string& text) {
  std::map<int64_t, int64_t> parts;
  const char *at = text.data(), *end = at + text.size();
  while (at != end) {
    int64_t sequence = 0, patches = 0;
    const auto first = std::from_chars(at, end, sequence);
    if (first.ec != std::errc() || first.ptr == end || *first.ptr != ':')
      throw Error("the saved state is damaged: `parts`");
    const auto second = std::from_chars(first.ptr + 1, end, patches);
    if (second.ec != std::errc() || second.ptr == end || *second.ptr != ' ')
      throw Error("the saved state is damaged: `parts`");
    parts[sequence] = patches;
    at = second.ptr + 1;
  }
  return parts;
}

bool is_done(const std::vector<bool>& done, int64_t i) {
  return i < static_cast<int64_t>(done.size()) && done[i];
}

constexpr int64_t kAnyNumberOfRanks = 0;

}  // namespace

Split::Split(std::unique_ptr<Stage<Sequence>> input, Share share) : input_(std::move(input)), share_(share) {
  TORCH_CHECK(share.ranks >= 1 && share.rank >= 0 && share.rank < share.ranks, "Split: rank ", share.rank,
              " of ", share.ranks);
}

std::optional<Sequence> Split::next() {
  while (std::optional<Sequence> sequence = input_->next()) {
    const int64_t index = position_++;
    sequence->text_before = text_;
    text_ += static_cast<int64_t>(sequence->bytes.size());
    if (is_done(done_, index - watermark_) || shared_++ % share_.ranks != share_.rank) continue;
    ++own_;
    const auto part = parts_.find(index);
    if (part != parts_.end()) sequence->patches_done = part->second;
    return sequence;
  }
  return std::nullopt;
}

void Split::save(StateWriter& out) const {
  out.put("rank", share_.rank);
  out.put("ranks", share_.ranks);
  out.put("position", position_);
  out.put("text", text_);
  out.put("shared", shared_);
  out.put("own", own_);
  out.put("watermark", watermark_);
  out.put("done", to_text(done_));
  out.put("parts", to_text(parts_));
  StateWriter input = out.section("input");
  input_->save(input);
}

void Split::load(const StateReader& in) {
  const int64_t rank = in.integer("rank"), ranks = in.integer("ranks");
  if (ranks != kAnyNumberOfRanks && (rank != share_.rank || ranks != share_.ranks))
    throw Error(
        fmt::format("this is the state of rank {} of {}, not of rank {} of {}: where the number of ranks "
                    "changes, the states of "
                    "all have to be handed over together (blt::hand_over)",
                    rank, ranks, share_.rank, share_.ranks));
  input_->load(in.section("input"));
  position_ = in.integer("position");
  text_ = in.integer("text");
  shared_ = in.integer("shared");
  own_ = in.integer("own");
  watermark_ = in.integer("watermark");
  done_ = done_of(in.text("done"));
  parts_ = parts_of(in.text("parts"));
}

StateWriter Split::hand_over(std::span<const Stopped> stopped) {
  const auto ranks = static_cast<int64_t>(stopped.size());
  TORCH_CHECK(ranks > 0, "Split::hand_over: no states");
  std::vector<int64_t> consumed;  // of each rank's own sequences
  const Stopped* first = &stopped[0];
  const int64_t watermark = first->split.integer("watermark");
  const std::string done_text = first->split.text("done"), parts_text = first->split.text("parts");
  for (int64_t r = 0; r < ranks; ++r) {
    const StateReader& state = stopped[r].split;
    if (state.integer("ranks") != ranks || state.integer("rank") != r ||
        state.integer("watermark") != watermark || state.text("done") != done_text ||
        state.text("parts") != parts_text)
      throw Error(
          fmt::format("these are not the states of all {} ranks of one run, in their order: number {} is of "
                      "rank {} of {}",
                      ranks, r, state.integer("rank"), state.integer("ranks")));
    consumed.push_back(state.integer("own") + stopped[r].since);
    if (state.integer("position") < first->split.integer("position")) first = &stopped[r];
  }
  // From the place of the rank that is furthest behind: everybody's sequences, and whether they are consumed.
  const std::vector<bool> done_before = done_of(done_text);
  const std::map<int64_t, int64_t> parts_before = parts_of(parts_text);
  const int64_t position = first->split.integer("position");
  const int64_t furthest = *std::max_element(consumed.begin(), consumed.end());
  std::vector<bool> done;
  std::map<int64_t, int64_t> parts;
  int64_t shared = first->split.integer("shared");
  int64_t end = watermark + static_cast<int64_t>(done_before.size());  // of what earlier generations left
  if (!parts_before.empty()) end = std::max(end, parts_before.rbegin()->first + 1);
  for (int64_t index = position; shared / ranks <= furthest || index < end; ++index) {
    if (is_done(done_before, index - watermark)) {
      done.push_back(true);
      continue;
    }
    const int64_t rank = shared % ranks, number = shared / ranks;
    ++shared;
    done.push_back(number < consumed[rank]);
    if (done.back()) continue;
    const auto before = parts_before.find(index);
    int64_t patches = before == parts_before.end() ? 0 : before->second;
    if (number == consumed[rank] && stopped[rank].unfinished > 0)
      patches +=
          stopped[rank].unfinished - (patches > 0 ? 1 : 0);  // its own BOS there was not the sequence's
    if (patches > 0) parts[index] = patches;
  }
  while (!done.empty() && !done.back()) done.pop_back();

  StateWriter out;
  out.put("rank", 0);
  out.put("ranks", kAnyNumberOfRanks);
  out.put("position", position);
  out.put("text", first->split.integer("text"));
  out.put("shared", 0);
  out.put("own", 0);
  out.put("watermark", position);
  out.put("done", to_text(done));
  out.put("parts", to_text(parts));
  out.put("input", StateWriter::of(first->split.section("input")));
  return out;
}

}  // namespace blt
