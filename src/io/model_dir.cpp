#include "blt/io/model_dir.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>

#include <functional>
#include <mutex>
#include <utility>

#include "blt/base/config_io.h"
#include "blt/base/error.h"
#include "blt/base/files.h"
#include "blt/io/model_content.h"
#include "blt/model/parameters.h"
#include "io/hf_config.h"
#include "io/weights.h"

namespace blt {
namespace {

namespace fs = std::filesystem;

constexpr const char* kInsideBlt = "model.patcher.";

// New modules fill their parameters with random numbers, which are not the caller's to lose.
class KeepRandomState {
 public:
  KeepRandomState() : generator_(at::globalContext().defaultGenerator(at::kCPU)) {
    const std::lock_guard lock(generator_.mutex());
    state_ = generator_.get_state();
  }
  ~KeepRandomState() {
    const std::lock_guard lock(generator_.mutex());
    generator_.set_state(state_);
  }
  KeepRandomState(const KeepRandomState&) = delete;
  KeepRandomState& operator=(const KeepRandomState&) = delete;

 private:
  at::Generator generator_;
  at::Tensor state_;
};

// Calls `build` for shapes alone. Sizes that no tensor can have are the config's fault.
template <class Build>
auto build_shapes(const fs::path& folder, Build build) {
  const MetaParameters shapes_only;
  try {
    return build();
  } catch (const c10::Error& e) {
    throw Error((folder / "config.json").string() +
                ": describes a model that cannot be built: " + e.what_without_backtrace());
  }
}

// Before modules are made: a number of layers that is a mistake would take forever.
void check_layers(const fs::path& folder, const WeightFiles& files, int64_t layers) {
  if (layers < 0 || static_cast<uint64_t>(layers) > files.num_tensors())
    throw Error((folder / "config.json").string() + ": wants " + std::to_string(layers) +
                " layers, but the weights have only " + std::to_string(files.num_tensors()) + " tensors");
}

int64_t total_layers(const ModelConfig& config) {
  int64_t layers = config.entropy_model ? config.entropy_model->layers : 0;
  for (const int64_t more : {config.blt.local_encoder.layers, config.blt.latent_transformer.layers,
                             config.blt.local_decoder.layers})
    if (__builtin_add_overflow(layers, more, &layers)) return -1;
  return layers;
}

std::vector<NamedParameter> all_parameters(const BltImpl& blt, const EntropyModelImpl* entropy_model) {
  std::vector<NamedParameter> parameters = named_parameters(blt);
  if (entropy_model != nullptr)
    for (NamedParameter& parameter : named_parameters(*entropy_model, kInsideBlt))
      parameters.push_back(std::move(parameter));
  return parameters;
}

// The narrowest type that rounds none of the parameters.
at::ScalarType common_dtype(const std::vector<NamedParameter>& parameters) {
  at::ScalarType dtype = parameters.front().parameter.scalar_type();
  for (const NamedParameter& parameter : parameters)
    dtype = c10::promoteTypes(dtype, parameter.parameter.scalar_type());
  return dtype;
}

// Fills a folder with a model: weights, then the config that makes it one.
void save(const fs::path& folder, const std::vector<NamedParameter>& parameters, const std::string& config) {
  for (const char* name : {"config.json", "model.safetensors", "model.safetensors.index.json"})
    if (std::error_code error; fs::exists(fs::symlink_status(folder / name, error)))
      throw Error((folder / name).string() + ": is there already; save the model in another folder");
  const auto fill = [&](const fs::path& target) {
    write_weights(target, parameters);
    write_file(target / "config.json", config);
  };
  std::error_code error;
  if (fs::exists(fs::symlink_status(folder, error))) {
    try {
      return fill(folder);
    } catch (...) {
      fs::remove(folder / "model.safetensors", error);  // weights without a config: ours, and of no use
      throw;
    }
  }
  fs::create_directories(folder.has_filename() ? folder.parent_path() : folder.parent_path().parent_path(),
                         error);
  AtomicDirectory directory(folder);
  fill(directory.path());
  directory.commit();
}

// A model as its folder will have it.
struct ModelToSave {
  std::vector<NamedParameter> parameters;
  std::string config;

  void write(const fs::path& folder) const { save(folder, parameters, config); }
  ModelContent content() const { return {.tensors = weight_tensors(parameters), .config = config}; }
};

ModelToSave to_save(const LoadedModel& model) {
  TORCH_CHECK(!model.blt.is_empty(), "save_model: there is no model");
  ModelConfig config = model.config;
  config.blt = model.blt->config();
  config.entropy_model.reset();
  if (!model.entropy_model.is_empty()) config.entropy_model = model.entropy_model->config();
  check_config(config, "the model to save");  // never one that load_model() would refuse
  std::vector<NamedParameter> parameters =
      all_parameters(*model.blt, model.entropy_model.is_empty() ? nullptr : model.entropy_model.get());
  std::string text = config_json(config, common_dtype(parameters));
  return {std::move(parameters), std::move(text)};
}

ModelToSave to_save(const EntropyModel& model) {
  TORCH_CHECK(!model.is_empty(), "save_entropy_model: there is no model");
  std::vector<NamedParameter> parameters = named_parameters(*model, "");
  std::string text = config_json(model->config(), common_dtype(parameters));
  return {std::move(parameters), std::move(text)};
}

}  // namespace

ModelKind read_model_kind(const fs::path& folder) { return ConfigFile(folder).kind(); }

ModelConfig read_model_config(const fs::path& folder) {
  const ConfigFile file(folder);
  if (file.kind() != ModelKind::kBlt)
    throw Error(folder.string() + ": holds an entropy model alone, no Byte Latent Transformer");
  return file.model();
}

EntropyModelConfig read_entropy_model_config(const fs::path& folder) {
  const ConfigFile file(folder);
  if (file.kind() == ModelKind::kEntropyModel) return file.entropy_model();
  const ModelConfig config = file.model();
  if (!config.entropy_model)
    throw Error(folder.string() + ": holds a Byte Latent Transformer without an entropy model");
  return *config.entropy_model;
}

LoadedModel load_model(const fs::path& folder) {
  LoadedModel model{.config = read_model_config(folder)};
  const ModelConfig& config = model.config;
  const auto build = [&config](Blt& blt, EntropyModel& entropy_model) {
    blt = Blt(config.blt);
    if (config.entropy_model) entropy_model = EntropyModel(*config.entropy_model);
    return all_parameters(*blt, entropy_model.is_empty() ? nullptr : entropy_model.get());
  };
  const WeightFiles files(folder);
  check_layers(folder, files, total_layers(config));
  files.check(build_shapes(folder,
                           [&] {
                             Blt blt{nullptr};
                             EntropyModel entropy_model{nullptr};
                             return build(blt, entropy_model);
                           }),
              "");
  const KeepRandomState keep;
  files.load(build(model.blt, model.entropy_model));
  return model;
}

EntropyModel load_entropy_model(const fs::path& folder) {
  const std::string prefix = read_model_kind(folder) == ModelKind::kBlt ? kInsideBlt : "";
  const EntropyModelConfig config = read_entropy_model_config(folder);
  const WeightFiles files(folder);
  check_layers(folder, files, config.layers);
  files.check(build_shapes(folder, [&] { return named_parameters(*EntropyModel(config), prefix); }), prefix);
  const KeepRandomState keep;
  EntropyModel model(config);
  files.load(named_parameters(*model, prefix));
  return model;
}

void load_weights(const fs::path& folder, const Blt& blt, const EntropyModel& entropy_model) {
  TORCH_CHECK(!blt.is_empty() || !entropy_model.is_empty(), "load_weights: there is no model");
  const std::vector<NamedParameter> parameters =
      blt.is_empty() ? named_parameters(*entropy_model, "")
                     : all_parameters(*blt, entropy_model.is_empty() ? nullptr : entropy_model.get());
  const WeightFiles files(folder);
  files.check(parameters, "");
  files.load(parameters);
}

void save_model(const fs::path& folder, const LoadedModel& model) { to_save(model).write(folder); }
void save_entropy_model(const fs::path& folder, const EntropyModel& model) { to_save(model).write(folder); }

ModelContent model_content(const LoadedModel& model) { return to_save(model).content(); }
ModelContent model_content(const EntropyModel& model) { return to_save(model).content(); }

}  // namespace blt
