// Sequences become patched sequences.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "blt/batch.h"
#include "blt/data/block_stage.h"
#include "blt/data/entropy_source.h"
#include "blt/data/metrics.h"
#include "blt/data/sequence.h"
#include "blt/patching/patcher.h"

namespace blt {

// The patcher from a place of the training text on.
struct PatcherFrom {
  int64_t text_bytes = 0;  // Sequence::text_before
  std::shared_ptr<const Patcher> patcher;
};

// What cuts a sequence, which depends on the text before it alone: not on threads, ranks or batches. Sorted by text_bytes, the first
// from 0 on. Empty for models that read bytes.
using PatchSchedule = std::vector<PatcherFrom>;

// Patches a block of sequences at a time, in threads ahead of who asks where there are some.
class PatchStage : public BlockStage<Sequence, PatchedSequence> {
 public:
  struct Options {
    bool eos = true;
    int64_t block_bytes = 16384;  // text of a block, whose entropies are asked for together
    int64_t threads = 0;          // 0: the caller's
    int64_t blocks_ahead = 1;     // with threads
    // Names a text, for messages; none: no text is named.
    std::function<std::string(const TextPlace&)> name_text = {};
  };
  // entropies: null where no patcher needs any; asked for by several threads where there are some. metrics: may be null.
  // Throws c10::Error when a patcher needs entropies and there is no source. What the source of entropies throws gets the names of the
  // block's first and last text where it is a blt::Error or a c10::Error.
  PatchStage(std::unique_ptr<Stage<Sequence>> input, PatchSchedule schedule,
             std::shared_ptr<EntropySource> entropies, Options options,
             std::shared_ptr<LoaderMetrics> metrics = nullptr);

  std::optional<PatchedSequence> next() override;

 private:
  std::shared_ptr<LoaderMetrics> metrics_;
};

}  // namespace blt
