// The picture of a text's entropies and patches, after figure 4 of the paper.
#pragma once

#include <string>
#include <vector>

#include "tools/patched_text.h"

namespace blt {

// A picture of more than this is no longer one to look at.
constexpr int64_t kMostDrawnBytes = 20000;

// An SVG document: the text in rows; over each row the entropy of every byte as a curve (nats), the threshold
// as a dashed line, and the patches as bands behind them. Without entropies: the bands and the text alone.
std::string patch_svg(const std::vector<TextPatch>& patches, const PatchRuleInfo& rule);

}  // namespace blt
