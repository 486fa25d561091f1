// Batches that all have the same sizes, whatever text is in them: filler sequences behind the text make up what it leaves. What the host
// launches for such a batch is the same for every one, so a CUDA graph can repeat it (train.cuda_graph).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "blt/batch.h"

namespace blt {

// What every batch has.
struct FilledSizes {
  int64_t ids = 0;           // T, special ids and filler included
  int64_t patches = 0;       // P, likewise; 0: batches of bytes alone
  int64_t sequences = 0;     // D, likewise
  int64_t sequence_ids = 0;  // the most that a sequence has, BOS and EOS included

  // Sequences that are filler in every batch: as many as T ids of filler take, so that none is longer than text may be.
  int64_t least_filler() const;
  // Why there can be no such batches, of any text; empty: there can.
  std::string problem() const;
};

// How much text a batch still takes so that filler can make up the rest exactly. Not thread-safe.
//
// F filler sequences have from 2 F patches on (their BOS is alone in one), and from one id a patch on. So what is left for them,
// T - t ids, P - p patches and F = D - d sequences, has to keep P - p >= 2 F and T - t >= P - p; and F >= least_filler(). Each of these is a
// budget that sequences take from, one by one: of sequences, of patches above two a sequence, and of ids above one a patch.
class FilledRoom {
 public:
  explicit FilledRoom(const FilledSizes& sizes);

  // Whether a sequence of so many ids in so many patches (0 in batches of bytes alone) fits.
  bool fits(int64_t ids, int64_t patches) const;
  void take(int64_t ids, int64_t patches);

 private:
  struct Needs {
    int64_t ids, patches;
  };
  Needs needs(int64_t ids, int64_t patches) const;

  bool patched_;
  int64_t sequences_, ids_, patches_;
};

// The batch of sequences that fit into a FilledRoom one after the other, with filler behind them: a BOS, then BOEs, in patches of nearly equal
// lengths. Filler has no targets, its n-grams are not looked up (Batch::text_documents), and TextPlace() is its place. Loss and gradients are
// those of Batch::pack(sequences) (or pack_bytes): no sequence sees another, and filler has no loss that a gradient would come from. `longest`
// of all segments is what it can be in any batch of these sizes.
Batch fill_batch(std::vector<PatchedSequence> sequences, const FilledSizes& sizes);

}  // namespace blt
