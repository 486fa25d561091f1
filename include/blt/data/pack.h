// Patched sequences become batches of a fixed budget. Nothing is padded.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "blt/batch.h"
#include "blt/data/filled_batch.h"
#include "blt/data/metrics.h"
#include "blt/data/stage.h"

namespace blt {

// Fills each batch with the sequences that come next, in their order. The last batch may be smaller.
class Pack : public Stage<Batch> {
 public:
  struct Options {
    // A batch is full when the next patch (or id, in batches without patches) would bring it above either budget; at least one is given.
    std::optional<int64_t> bytes = {};    // of text: special ids are not counted
    std::optional<int64_t> patches = {};  // BOS patches included; at least 2
    // Whether a sequence that does not fit is cut between two patches: its tail opens the next batch with a BOS of its own, and the id
    // before the cut takes no loss (REFERENCE section 16). Else the batch ends before it, and a sequence above a budget is a batch by
    // itself.
    bool cut = true;
    // Whether batches have patches (Batch::pack) or bytes alone (Batch::pack_bytes).
    bool patched = true;
    // Every batch has these sizes, with filler (filled_batch.h), instead of budgets; sequences are cut, and none has more than
    // `sequence_ids` ids.
    std::optional<FilledSizes> filled = {};
  };
  // metrics: may be null.
  Pack(std::unique_ptr<Stage<PatchedSequence>> input, Options options,
       std::shared_ptr<LoaderMetrics> metrics = nullptr);

  std::optional<Batch> next() override;
  void save(StateWriter& out) const override;
  void load(const StateReader& in) override;

 private:
  bool pull();  // the next sequence becomes pending_; false at the end
  std::vector<PatchedSequence> fill();
  std::vector<PatchedSequence> fill_room();
  PatchedSequence hand_out(int64_t end);
  double used(int64_t bytes, int64_t patches, int64_t ids) const;

  std::unique_ptr<Stage<PatchedSequence>> input_;
  Options options_;
  std::shared_ptr<LoaderMetrics> metrics_;
  std::optional<PatchedSequence> pending_;  // read, and not or not wholly handed out
  StateWriter pending_input_;               // the input's state before it was read
  int64_t pending_pieces_ = 0;              // of its beginning, that were handed out
};

}  // namespace blt
