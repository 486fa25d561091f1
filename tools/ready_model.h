// A model directory, read and ready for use by a program.
#pragma once

#include <c10/core/Device.h>

#include <filesystem>
#include <memory>

#include "blt/data/entropy_source.h"
#include "blt/io/model_dir.h"
#include "blt/model/blt.h"
#include "blt/model/entropy_model.h"
#include "blt/patching/patcher.h"
#include "blt/patching/patching_config.h"

namespace blt {

// How a Byte Latent Transformer's directory cuts text into patches.
struct ReadyPatching {
  PatchingConfig config = {};
  std::shared_ptr<const Patcher> patcher = nullptr;
  std::shared_ptr<EntropySource> entropies =
      nullptr;  // null where there is no entropy model on the CPU, or nobody asks it
};

struct ReadyModel {
  Blt blt{nullptr};  // in evaluation mode; null: the directory holds an entropy model alone
  EntropyModel entropy_model{nullptr};  // frozen; null where there is none
  ReadyPatching patching = {};          // of a Byte Latent Transformer
};

// Both throw blt::Error as blt/io/model_dir.h does.

// device: of the Byte Latent Transformer, or of an entropy model alone. entropy_device: of the entropy model inside a Byte Latent Transformer; on
// the CPU, where patches start, and so what is measured, does not depend on the machine.
ReadyModel open_model(const std::filesystem::path& folder, at::Device device, at::Device entropy_device);
// Reads no weights but the entropy model's, and those only where the rule needs entropies. Throws blt::Error for an entropy model alone.
ReadyPatching open_patching(const std::filesystem::path& folder);

}  // namespace blt
