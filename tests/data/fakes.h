// Stand-ins for the parts around a stage under test.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "blt/base/rng.h"
#include "blt/batch.h"
#include "blt/data/entropy_source.h"
#include "blt/data/sequence.h"
#include "blt/data/stage.h"

namespace blt {

// Hands out what it was given.
template <class T>
class ListStage : public Stage<T> {
 public:
  explicit ListStage(std::vector<T> items) : items_(std::move(items)) {}
  std::optional<T> next() override {
    if (index_ == items_.size()) return std::nullopt;
    return items_[index_++];
  }
  void save(StateWriter& out) const override { out.put("index", static_cast<int64_t>(index_)); }
  void load(const StateReader& in) override { index_ = static_cast<size_t>(in.integer("index")); }

 private:
  std::vector<T> items_;
  size_t index_ = 0;
};

// Documents of random bytes, cut into sequences.
inline std::vector<Sequence> random_sequences(int count, uint64_t seed, size_t longest = 30) {
  Rng rng(seed, "sequences");
  std::vector<Sequence> result;
  for (int i = 0; i < count; ++i) {
    Sequence sequence;
    const size_t size = 1 + rng.below(longest);
    for (size_t b = 0; b < size; ++b)
      sequence.bytes += rng.below(5) == 0 ? ' ' : static_cast<char>(rng.below(256));
    sequence.starts_document = result.empty() || result.back().ends_document;
    sequence.ends_document = rng.below(3) != 0;
    result.push_back(sequence);
  }
  return result;
}

// Entropies that depend on all ids before them, and how often they were asked for.
class FakeEntropies : public EntropySource {
 public:
  std::vector<SequenceScores> scores(std::span<const std::vector<int32_t>> sequences) override {
    ++calls;
    std::vector<SequenceScores> result;
    for (const std::vector<int32_t>& ids : sequences) {
      uint64_t hash = 1;
      SequenceScores scores;
      for (const int32_t id : ids) {
        hash = (hash + static_cast<uint64_t>(id)) * 0x9e3779b97f4a7c15u;
        scores.entropies.push_back(static_cast<float>(hash >> 40) / static_cast<float>(1 << 22));
        scores.nll.push_back(0);
      }
      num_sequences += 1;
      result.push_back(scores);
    }
    return result;
  }
  std::atomic<int> calls{0};
  std::atomic<int> num_sequences{0};
};

template <class T>
std::vector<T> take(Stage<T>& stage, size_t most = 1000000) {
  std::vector<T> result;
  while (result.size() < most) {
    std::optional<T> item = stage.next();
    if (!item) break;
    result.push_back(std::move(*item));
  }
  return result;
}

// Everything in an item, to compare.
inline std::string text_of(const Sequence& sequence) {
  return std::string(sequence.starts_document ? "[" : "(") + sequence.bytes +
         (sequence.ends_document ? "]" : ")");
}
inline std::string text_of(const PatchedSequence& sequence) {
  std::string result;
  for (const int32_t id : sequence.ids) result += std::to_string(id) + " ";
  result += "|";
  for (const int64_t start : sequence.starts) result += " " + std::to_string(start);
  return result;
}
inline std::string text_of(const at::Tensor& tensor) {
  std::string result = "|";
  if (!tensor.defined()) return result;
  for (int64_t i = 0; i < tensor.numel(); ++i)
    result += " " + std::to_string(tensor.const_data_ptr<int32_t>()[i]);
  return result;
}
inline std::string text_of(const Batch& batch) {
  return text_of(batch.bytes) + text_of(batch.targets) + text_of(batch.documents.offsets) +
         text_of(batch.patches.offsets) + text_of(batch.latent_documents.offsets) +
         text_of(batch.readers.offsets);
}
template <class T>
std::vector<std::string> texts_of(const std::vector<T>& items) {
  std::vector<std::string> result;
  for (const T& item : items) result.push_back(text_of(item));
  return result;
}

}  // namespace blt
