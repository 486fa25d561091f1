// A model directory that is written later, of the model as it is now.
#pragma once

#include <filesystem>
#include <functional>

#include "blt/io/model_dir.h"

namespace blt {

// What save_model() or save_entropy_model() would write: parameters that take gradients are copied, the others may not change. It writes
// when it is called, on any thread, and throws what those throw.
using ModelWriter = std::function<void(const std::filesystem::path& folder)>;
ModelWriter copy_to_save(const LoadedModel& model);
ModelWriter copy_to_save(const EntropyModel& model);

}  // namespace blt
