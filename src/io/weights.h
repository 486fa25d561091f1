// The tensors of a model directory, and how they become a module's parameters.
#pragma once

#include <torch/nn/module.h>

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "blt/io/safetensors.h"
#include "blt/model/blt.h"
#include "blt/model/entropy_model.h"

namespace blt {

// A parameter and what its tensor is called in a file.
struct NamedParameter {
  std::string name;
  std::string other_name;  // where transformers has two names for one tied tensor; else empty
  at::Tensor parameter;
};
std::vector<NamedParameter> named_parameters(const BltImpl& model);
// prefix: "model.patcher." inside a BLT's directory, "" alone.
std::vector<NamedParameter> named_parameters(const EntropyModelImpl& model, const std::string& prefix);

// model.safetensors, or the shards that model.safetensors.index.json names.
class WeightFiles {
 public:
  // Throws blt::Error: no weights, a shard missing or damaged, an index that does not fit its shards.
  explicit WeightFiles(const std::filesystem::path& folder);

  size_t num_tensors() const { return tensors_.size(); }

  // Throws blt::Error with all tensors under `prefix` that are missing, not expected, or of another shape or
  // dtype than the parameters (which may be on the meta device) want.
  void check(const std::vector<NamedParameter>& parameters, const std::string& prefix) const;

  // Fills the parameters, of which check() approved.
  void load(const std::vector<NamedParameter>& parameters) const;

 private:
  struct Located {
    const SafetensorsFile* file;
    const SafetensorsEntry* entry;
  };
  const Located* find(const NamedParameter& parameter) const;
  void read_index(const std::filesystem::path& index);
  const SafetensorsFile& open(const std::filesystem::path& path);

  std::filesystem::path folder_;
  std::map<std::string, std::unique_ptr<SafetensorsFile>> files_;
  std::map<std::string, Located> tensors_;
};

// What model.safetensors holds of the parameters.
std::vector<std::pair<std::string, at::Tensor>> weight_tensors(const std::vector<NamedParameter>& parameters);
// Writes the parameters into folder/model.safetensors.
void write_weights(const std::filesystem::path& folder, const std::vector<NamedParameter>& parameters);

}  // namespace blt
