#include "blt/data/patch_stage.h"

#include <c10/util/Exception.h>

#include <utility>

namespace blt {

PatchStage::PatchStage(std::unique_ptr<Stage<Sequence>> input, std::shared_ptr<const Patcher> patcher,
                       std::shared_ptr<EntropySource> entropies, std::shared_ptr<PatchCache> cache,
                       Options options)
    : BlockStage(std::move(input), options.entropy_batch_bytes),
      patcher_(std::move(patcher)),
      entropies_(std::move(entropies)),
      cache_(std::move(cache)),
      options_(options) {
  TORCH_CHECK(!needs_entropies() || entropies_,
              "PatchStage: the patcher needs entropies, and there is no source of them");
}

std::vector<PatchedSequence> PatchStage::work(std::vector<Sequence> block, int64_t) {
  std::vector<PatchedSequence> result(block.size());
  for (size_t i = 0; i < block.size(); ++i) result[i].ids = block[i].ids(options_.eos);
  if (needs_entropies())
    find_starts_by_entropies(result);
  else if (patcher_)
    for (PatchedSequence& sequence : result) sequence.starts = patcher_->starts(sequence.ids);
  return result;
}

void PatchStage::find_starts_by_entropies(std::vector<PatchedSequence>& sequences) {
  std::vector<size_t> unknown;
  std::vector<std::vector<int32_t>> ids;
  for (size_t i = 0; i < sequences.size(); ++i) {
    if (auto starts = cache_ ? cache_->find(sequences[i].ids) : std::nullopt) {
      sequences[i].starts = std::move(*starts);
    } else {
      unknown.push_back(i);
      ids.push_back(sequences[i].ids);
    }
  }
  if (unknown.empty()) return;
  const std::vector<SequenceScores> scores = entropies_->scores(ids);
  TORCH_CHECK(scores.size() == ids.size(), "EntropySource::scores: ", ids.size(), " sequences but ",
              scores.size(), " results");
  for (size_t u = 0; u < unknown.size(); ++u) {
    PatchedSequence& sequence = sequences[unknown[u]];
    sequence.starts = patcher_->starts(sequence.ids, scores[u].entropies);
    if (cache_) cache_->add(sequence.ids, sequence.starts);
  }
}

}  // namespace blt
