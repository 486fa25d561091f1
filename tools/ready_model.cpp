#include "tools/ready_model.h"

#include "blt/base/error.h"
#include "blt/data/entropy_model_source.h"

namespace blt {
namespace {

EntropyModel frozen(EntropyModel model, at::Device device) {
  model->to(device);
  freeze(*model);
  return model;
}

// entropy_model: frozen; null where there is none.
ReadyPatching ready_patching(const PatchingConfig& config, const EntropyModel& entropy_model) {
  ReadyPatching ready{.config = config, .patcher = make_patcher(config)};
  if (entropy_model.is_empty() || !entropy_model->parameters().front().is_cpu()) return ready;
  EntropyModelSource::Options how;
  how.reset_at_newline = config.resets_at_newline();
  ready.entropies = std::make_shared<EntropyModelSource>(entropy_model, how);
  return ready;
}

}  // namespace

ReadyModel open_model(const std::filesystem::path& folder, at::Device device, at::Device entropy_device) {
  ReadyModel ready;
  if (read_model_kind(folder) == ModelKind::kEntropyModel) {
    ready.entropy_model = frozen(load_entropy_model(folder), device);
    return ready;
  }
  const LoadedModel loaded = load_model(folder);
  ready.blt = loaded.blt;
  ready.blt->to(device);
  ready.blt->eval();
  if (!loaded.entropy_model.is_empty()) ready.entropy_model = frozen(loaded.entropy_model, entropy_device);
  ready.patching = ready_patching(loaded.config.patching, ready.entropy_model);
  return ready;
}

ReadyPatching open_patching(const std::filesystem::path& folder) {
  if (read_model_kind(folder) == ModelKind::kEntropyModel)
    throw Error(folder.string() +
                ": holds an entropy model alone, which says nothing about where patches start; name the Byte "
                "Latent Transformer that was trained on it");
  const PatchingConfig config = read_model_config(folder).patching;
  if (!config.needs_entropies()) return ready_patching(config, EntropyModel(nullptr));
  return ready_patching(config, frozen(load_entropy_model(folder), at::kCPU));
}

}  // namespace blt
