// Everything that a run is: what blt_train reads.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "blt/base/config.h"
#include "blt/data/data_config.h"
#include "blt/model/blt.h"
#include "blt/model/entropy_model.h"
#include "blt/patching/patching_config.h"
#include "blt/train/trainer.h"

namespace blt {

// An entropy model that is there already.
struct GivenEntropyModel {
  static constexpr std::string_view kKind = "directory";
  std::filesystem::path path = {};

  static void fields(auto& self, auto&& field) {
    field("path", self.path, "A model directory: an entropy model alone, or a BLT with one inside.");
  }
  void validate(Errors& errors) const;
};

// An entropy model that is trained first.
struct TrainedEntropyModel {
  static constexpr std::string_view kKind = "train";
  EntropyModelConfig model = {};
  TrainConfig train = {};
  std::optional<int64_t> sequence_bytes = {};
  std::optional<int64_t> batch_bytes = {};

  static void fields(auto& self, auto&& field) {
    field("model", self.model, "The entropy model's shape.");
    field("train", self.train, "Its training.");
    field("sequence_bytes", self.sequence_bytes, "Its data.sequence_bytes, where it wants another.",
          at_least(1));
    field("batch_bytes", self.batch_bytes, "Its data.batch_bytes, where it wants another.", at_least(1));
  }
};

// What a run is besides its models. A checkpoint keeps it as run.yaml, beside config.json, which is the only description of the
// model there.
struct RunSettings {
  std::filesystem::path output = {};
  int64_t seed = 1;
  DataConfig data = {};
  TrainConfig train = {};
  ParallelConfig parallel = {};

  static void fields(auto& self, auto&& field) {
    field("output", self.output,
          "Folder for checkpoints and metrics: step_* and latest; an entropy model's go to entropy_model/ "
          "inside it.");
    field("seed", self.seed,
          "Seed of the initial parameters, of dropout, and of what the optimizer rounds at random.",
          at_least(0));
    field("data", self.data, "The text.");
    field("train", self.train, "The training of the Byte Latent Transformer.");
    field("parallel", self.parallel, "How several processes (ranks) train together.");
  }
};

struct RunConfig : RunSettings {
  std::string device = "cpu";
  std::optional<std::variant<GivenEntropyModel, TrainedEntropyModel>> entropy_model = {};
  PatchingConfig patching = {};
  std::optional<BltConfig> model = {};

  static void fields(auto& self, auto&& field) {
    RunSettings::fields(self, field);
    field("device", self.device,
          "Where the models are trained: cpu, cuda (of several ranks on a machine, each its own), or one of "
          "several such as cuda:1. A checkpoint does not depend on it: a run may go on elsewhere.");
    field("entropy_model", self.entropy_model,
          "Whose entropies cut the text; none for rules that need none.");
    field("patching", self.patching, "How bytes become patches.");
    field("model", self.model, "The Byte Latent Transformer; none: train the entropy model alone.");
  }
  void validate(Errors& errors) const;
};

// The run as the stage of its entropy model, which is of kind `train`, sees it.
RunSettings entropy_model_settings(const RunConfig& config);

}  // namespace blt
