// Whether a checkpoint can go on with the settings of today.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "blt/io/model_dir.h"
#include "blt/train/run_config.h"

namespace blt {

// Throws blt::Error, listing what differs, unless the settings are those that the checkpoint was made with, but for what may change
// (RunOptions::resume in blt/train/run.h). Anything else would make the saved place in the data, or the weights, mean something else.
void require_same_run(const std::filesystem::path& checkpoint, const RunSettings& settings,
                      const ModelConfig& model);
void require_same_run(const std::filesystem::path& checkpoint, const RunSettings& settings,
                      const EntropyModelConfig& entropy_model);

// What to tell the user where so many ranks, with these settings, take steps of another size than the run that the checkpoint is of would have
// taken from there on: both sizes, and what keeps the size. Empty where they are the same. train: the path of settings.train in the config.
std::string change_of_step_size(const std::filesystem::path& checkpoint, const RunSettings& settings,
                                int64_t ranks, std::string_view train);

// What to tell the user where the schedule of these settings gives the next step another share of the peak learning rate than that of the run
// that the checkpoint is of: a cosine over more steps jumps back up. Empty where they differ by less than a hundredth.
std::string change_of_learning_rate(const std::filesystem::path& checkpoint, const RunSettings& settings,
                                    std::string_view train);

}  // namespace blt
