// Where a run's checkpoints lie.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>

namespace blt {

// Fills a temporary folder by calling `save` with it, renames it to `output/step_<step>`, then points the link `output/latest` at it.
void write_checkpoint(const std::filesystem::path& output, int64_t step,
                      const std::function<void(const std::filesystem::path&)>& save);

// Throws blt::Error when `output` holds checkpoints of an earlier run: a run never writes over another.
void require_fresh_output(const std::filesystem::path& output);

}  // namespace blt
