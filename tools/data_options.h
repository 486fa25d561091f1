// The command line of blt_data.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "blt/base/tool.h"
#include "blt/patching/calibrate.h"
#include "blt/train/run_config.h"

namespace blt {

enum class DataCommand { kStats, kCalibrate, kEntropies, kInspect };
template <>
struct EnumNames<DataCommand> {
  static constexpr std::pair<DataCommand, std::string_view> kValues[] = {
      {DataCommand::kStats, "stats"},
      {DataCommand::kCalibrate, "calibrate"},
      {DataCommand::kEntropies, "entropies"},
      {DataCommand::kInspect, "inspect"}};
};

struct DataOptions : ConfigOptions<RunConfig> {
  DataCommand command = DataCommand::kStats;
  std::optional<std::filesystem::path> model;
  std::optional<double> mean_patch_bytes;
  int64_t sample_bytes = 1 << 20;
  int64_t step = 1;
  int64_t rank = 0;
  int64_t ranks = 1;
  std::optional<std::filesystem::path> svg;
  bool json = false;

  static void fields(auto& self, auto&& field) {
    field("command", self.command,
          "stats: count the documents of the training text and measure its patches. calibrate: find the "
          "patching threshold. entropies: "
          "fill data.entropy_cache. inspect: show the batches of a step: those of the model, or with "
          "model=null those of the entropy model.");
    ConfigOptions<RunConfig>::fields(self, field);
    field("model", self.model,
          "A model directory, for its entropies and, of a Byte Latent Transformer, its patching. Default: "
          "the config's "
          "entropy_model.path, and its patching.");
    field("mean_patch_bytes", self.mean_patch_bytes,
          "Of calibrate: the wanted mean patch length. Default: the config's, or 4.5.", above(1));
    field("sample_bytes", self.sample_bytes,
          "Of stats and calibrate: training text whose patches are looked at.", at_least(1));
    field("step", self.step, "Of inspect: which step, from 1.", at_least(1));
    field("rank", self.rank, "Of inspect: whose batches, from 0.", at_least(0));
    field("ranks", self.ranks, "Of inspect: processes that train together.", at_least(1));
    field(
        "svg", self.svg,
        "Of stats: draw how long patches are. Of calibrate: draw the mean patch length over the threshold.");
    field("json", self.json, "Of stats and calibrate: print one JSON object.");
  }
  static constexpr Positional kPositional[] = {{"command", "stats|calibrate|entropies|inspect"},
                                               {"config", "CONFIG.yaml"},
                                               {"overrides", "section.key=value"}};

  void validate(Errors& errors) const {
    ConfigOptions::validate(errors);
    if (rank >= ranks) errors.add("rank", "counts from 0 and is less than --ranks");
  }
};

}  // namespace blt
