// Patched sequences become batches of a fixed budget. Nothing is padded.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "blt/batch.h"
#include "blt/data/stage.h"

namespace blt {

// Fills each batch with the sequences that come next, in their order. The last batch may be smaller.
class Pack : public Stage<Batch> {
 public:
  struct Options {
    // Text bytes (special ids are not counted) of whole sequences; a longer sequence is a batch by itself.
    // Ignored with `patches`.
    int64_t bytes = 16384;
    // Patches, BOS patches included: so many a batch, or one fewer; at least 2. A sequence that does not fit
    // is cut between two patches: its tail opens the next batch with a BOS of its own, and the id before the
    // cut takes no loss (REFERENCE section 16).
    std::optional<int64_t> patches = {};
    // Whether batches have patches (Batch::pack) or bytes alone (Batch::pack_bytes).
    bool patched = true;
  };
  Pack(std::unique_ptr<Stage<PatchedSequence>> input, Options options);

  std::optional<Batch> next() override;
  void save(StateWriter& out) const override;
  void load(const StateReader& in) override;

 private:
  bool pull();  // the next sequence becomes pending_; false at the end
  std::vector<PatchedSequence> fill_bytes();
  std::vector<PatchedSequence> fill_patches();

  std::unique_ptr<Stage<PatchedSequence>> input_;
  Options options_;
  std::optional<PatchedSequence> pending_;  // read, and not or not wholly handed out
  StateWriter pending_input_;               // the input's state before it was read
  int64_t pending_patches_ = 0;             // of it, that were handed out
};

}  // namespace blt
