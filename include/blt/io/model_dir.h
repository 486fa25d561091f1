// Models on disk, as Hugging Face directories: config.json and model.safetensors (or shards with an index).
// docs/formats.md describes both files.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "blt/base/config.h"
#include "blt/model/blt.h"
#include "blt/model/entropy_model.h"
#include "blt/patching/patching_config.h"

namespace blt {

// Everything that a Byte Latent Transformer's directory says besides the weights.
struct ModelConfig {
  BltConfig blt = {};
  std::optional<EntropyModelConfig> entropy_model = {};
  PatchingConfig patching = {};

  static void fields(auto& self, auto&& field) {
    field("blt", self.blt, "The Byte Latent Transformer.");
    field("entropy_model", self.entropy_model, "The entropy model inside; none: the directory has none.");
    field("patching", self.patching, "How bytes become patches.");
  }
};

struct LoadedModel {
  ModelConfig config = {};
  Blt blt{nullptr};
  EntropyModel entropy_model{nullptr};  // null where the directory has none
};

enum class ModelKind { kBlt, kEntropyModel };

// All functions throw blt::Error that names the file, and the key or the tensors at fault. A directory of
// transformers means what transformers 5.23 computes with it; refused is what libblt would compute otherwise
// (activations other than SiLU, scaled rotary positions, ...).

ModelKind read_model_kind(const std::filesystem::path& folder);
ModelConfig read_model_config(const std::filesystem::path& folder);
// Of an entropy model alone, or of the one inside a Byte Latent Transformer's directory.
EntropyModelConfig read_entropy_model_config(const std::filesystem::path& folder);

// Names, shapes and dtypes are checked before any weight is read. Weights become float32, on the CPU, whatever type they
// are stored in. Modules are in training mode and take gradients, as new ones. Does not disturb LibTorch's random numbers.
LoadedModel load_model(const std::filesystem::path& folder);
EntropyModel load_entropy_model(const std::filesystem::path& folder);  // as read_entropy_model_config

// Fills modules that are there already from a directory with the same ones; null where there is none.
void load_weights(const std::filesystem::path& folder, const Blt& blt, const EntropyModel& entropy_model);

// What transformers' BLT cannot express of a model, one reason each. With none, the directory is one that
// transformers loads and computes the same with; else it has `model_type: libblt`, which transformers refuses.
std::vector<std::string> beyond_transformers(const ModelConfig& config);
std::vector<std::string> beyond_transformers(const EntropyModelConfig& config);

// Writes a model directory. A folder that is not there appears whole, with its parents; one that is there gets
// config.json last, and must not hold a model already. Weights are stored in the type that the parameters have.
// model.config.blt and .entropy_model are taken from the modules; their settings for initialisation are not kept
// where transformers can express the rest.
void save_model(const std::filesystem::path& folder, const LoadedModel& model);
void save_entropy_model(const std::filesystem::path& folder, const EntropyModel& model);

}  // namespace blt
