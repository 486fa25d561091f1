// Every bare rule against the reference's patch lengths (tests/golden/patching.json, REFERENCE section 5).
#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>

#include "blt/patching/cut.h"
#include "blt/patching/rules.h"
#include "patching/top_k.h"

namespace blt {
namespace {

using nlohmann::json;
using Starts = std::vector<int64_t>;

// The starts by the rule of a golden case, before anything that the model adds to it.
Starts bare_starts(const json& c, std::span<const int32_t> ids, std::span<const float> entropies) {
  std::optional<int64_t> longest;
  if (c.contains("max_patch_length")) longest = c["max_patch_length"].get<int64_t>();
  const PatchBoundary boundary(longest, /*bos_alone=*/false);
  const std::string mode = c["mode"];
  if (mode == "static")
    return cut_whole(StaticRule{c["patch_size"].get<int64_t>()}, ids, entropies, boundary);
  if (mode == "byte") return cut_whole(ByteRule{}, ids, entropies, boundary);
  if (mode == "space") return cut_whole(SpaceRule{}, ids, entropies, boundary);
  EXPECT_EQ(mode, "entropy");
  if (!c.contains("threshold")) {
    const auto marks = top_k_marks(entropies, c["patch_size"].get<int64_t>());
    return cut_whole([&, i = size_t{0}](int32_t) mutable { return bool(marks[i++]); }, ids, entropies,
                     boundary);
  }
  const float threshold = c["threshold"].get<float>();
  if (c["monotonicity"].get<bool>()) return cut_whole(MonotonicRule{threshold}, ids, entropies, boundary);
  if (c.contains("threshold_add"))
    return cut_whole(ThresholdAddRule{threshold, c["threshold_add"].get<float>()}, ids, entropies, boundary);
  return cut_whole(ThresholdRule{threshold}, ids, entropies, boundary);
}

// Lengths as the reference reports them: with the next id counted as part of the last patch, or without it.
Starts lengths_of(Starts starts, int64_t size, bool include_next_token) {
  if (!include_next_token && starts.back() == size) starts.pop_back();
  starts.push_back(include_next_token ? size + 1 : size);
  Starts lengths;
  for (size_t p = 1; p < starts.size(); ++p) lengths.push_back(starts[p] - starts[p - 1]);
  return lengths;
}

TEST(Patching, BareRulesEqualTheReference) {
  std::ifstream file(BLT_GOLDEN_DIR "/patching.json");
  ASSERT_TRUE(file.good());
  int64_t cases = 0, rows = 0;
  const json golden = json::parse(file);
  for (const json& c : golden.at("patch")) {
    ++cases;
    for (size_t row = 0; row < c["tokens"].size(); ++row) {
      ++rows;
      const auto ids = c["tokens"][row].get<std::vector<int32_t>>();
      std::vector<float> entropies;
      if (c.contains("entropies")) entropies = c["entropies"][row].get<std::vector<float>>();
      const Starts starts = bare_starts(c, ids, entropies);
      auto expected = c["official_patch_lengths"][row].get<Starts>();
      while (!expected.empty() && expected.back() == 0) expected.pop_back();  // padding of shorter rows
      const bool include_next = c["include_next_token"].get<bool>();
      EXPECT_EQ(lengths_of(starts, static_cast<int64_t>(ids.size()), include_next), expected)
          << "row " << row << " of " << json(c).dump();
    }
  }
  EXPECT_EQ(cases, 319);
  EXPECT_GE(rows, cases);
}

}  // namespace
}  // namespace blt
