// Sequences become patched sequences.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "blt/batch.h"
#include "blt/data/block_stage.h"
#include "blt/data/entropy_source.h"
#include "blt/data/sequence.h"
#include "blt/patching/patcher.h"

namespace blt {

// Patches found earlier, by the content of the sequence. One cache serves one patcher with one entropy
// source; training and validation, and every validation pass, may share it. Full, it keeps what it has. Not
// thread-safe.
class PatchCache {
 public:
  explicit PatchCache(int64_t max_bytes) : max_bytes_(max_bytes) {}

  std::optional<std::vector<int64_t>> find(const std::vector<int32_t>& ids) const;
  void add(const std::vector<int32_t>& ids, const std::vector<int64_t>& starts);
  int64_t size_bytes() const { return bytes_; }

 private:
  using Key = std::array<uint64_t, 2>;
  static Key key_of(const std::vector<int32_t>& ids);

  int64_t max_bytes_;
  int64_t bytes_ = 0;
  std::map<Key, std::vector<uint32_t>> starts_;
};

class PatchStage : public BlockStage<Sequence, PatchedSequence> {
 public:
  struct Options {
    bool eos = true;
    int64_t entropy_batch_bytes = 16384;  // sequences whose entropies are asked for together
  };
  // patcher: null leaves `starts` empty, for models that read bytes. entropies: null where the patcher needs
  // none. cache: null keeps nothing; used only for patchers that need entropies.
  // Throws c10::Error when the patcher needs entropies and there is no source.
  PatchStage(std::unique_ptr<Stage<Sequence>> input, std::shared_ptr<const Patcher> patcher,
             std::shared_ptr<EntropySource> entropies, std::shared_ptr<PatchCache> cache, Options options);

 protected:
  int64_t weight(const Sequence& item) const override { return static_cast<int64_t>(item.bytes.size()); }
  std::vector<PatchedSequence> work(std::vector<Sequence> block, int64_t index) override;

 private:
  bool needs_entropies() const { return patcher_ && patcher_->needs_entropies(); }
  void find_starts_by_entropies(std::vector<PatchedSequence>& sequences);

  std::shared_ptr<const Patcher> patcher_;
  std::shared_ptr<EntropySource> entropies_;
  std::shared_ptr<PatchCache> cache_;
  Options options_;
};

}  // namespace blt
