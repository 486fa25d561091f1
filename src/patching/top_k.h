// The patches that start at the highest entropies of a whole sequence (REFERENCE section 5, threshold None).
#pragma once

#include <cstdint>
#include <vector>

#include "blt/patching/patcher.h"

namespace blt {

// marks[i] says whether id i + 1 starts a patch: after the first id, and after the S / patch_bytes - 2 ids of
// the highest entropies (of equal ones the earlier). The entropy after the first id is never compared.
std::vector<bool> top_k_marks(std::span<const float> entropies, int64_t patch_bytes);

class TopKPatcher final : public Patcher {
 public:
  TopKPatcher(int64_t patch_bytes, std::optional<int64_t> max_patch_length)
      : Patcher(max_patch_length), patch_bytes_(patch_bytes) {}
  bool needs_entropies() const override { return true; }
  std::unique_ptr<PatchRule> rule() const override;

 protected:
  std::vector<int64_t> cut(std::span<const int32_t> ids, std::span<const float> entropies) const override;

 private:
  int64_t patch_bytes_;
};

}  // namespace blt
