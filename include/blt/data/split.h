// Shares one order of sequences among ranks.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "blt/data/sequence.h"
#include "blt/data/stage.h"

namespace blt {

// One of several loaders that read the same data at the same time, each its own share of it.
struct Share {
  int64_t rank = 0, ranks = 1;
};

// Every rank reads the whole order of sequences, which does not depend on ranks, and takes each `ranks`-th: shares are disjoint and
// together everything. Ranks go at their own pace, and their number may change (hand_over): a state then has a watermark, before which all
// sequences are consumed, those consumed beyond it, and those of which a part is.
class Split : public Stage<Sequence> {
 public:
  Split(std::unique_ptr<Stage<Sequence>> input, Share share);

  std::optional<Sequence> next() override;
  void save(StateWriter& out) const override;
  // Throws blt::Error when the state is of another rank, or of another number of ranks, and was not handed over.
  void load(const StateReader& in) override;

  // Where a rank was stopped.
  struct Stopped {
    StateReader split;  // a state of its Split
    int64_t since = 0;  // sequences that the rank has wholly consumed after that
    int64_t unfinished =
        0;  // patches of the next one that are consumed, counted from where it began on this rank
  };
  // The state with which any number of ranks go on where all of these, in the order of their rank, were stopped. Throws blt::Error when
  // they are not the states of all ranks of one run.
  static StateWriter hand_over(std::span<const Stopped> stopped);

 private:
  std::unique_ptr<Stage<Sequence>> input_;
  Share share_;
  int64_t position_ = 0;  // sequences read
  int64_t text_ = 0;      // bytes of them
  int64_t shared_ = 0;    // of them, those that this generation of ranks shared among itself
  int64_t own_ = 0;       // of those, this rank's
  // What earlier generations left: sequence watermark_ + i is consumed where done_[i]; of some, a part is.
  int64_t watermark_ = 0;
  std::vector<bool> done_;
  std::map<int64_t, int64_t> parts_;  // sequence -> patches of it
};

}  // namespace blt
