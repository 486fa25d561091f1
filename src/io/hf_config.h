// config.json: transformers' settings of a BLT, and libblt's.
#pragma once

#include <c10/core/ScalarType.h>

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "blt/io/model_dir.h"

namespace blt {

// The text of a folder's config.json, with what it says about itself.
class ConfigFile {
 public:
  // Throws blt::Error: no config.json, no JSON object, an unknown model_type.
  explicit ConfigFile(const std::filesystem::path& folder);
  ConfigFile(std::string name, std::string text);  // name: the file's, for messages

  ModelKind kind() const { return kind_; }
  ModelConfig model() const;                 // of kind kBlt
  EntropyModelConfig entropy_model() const;  // of kind kEntropyModel

 private:
  std::string name_, text_;
  ModelKind kind_ = ModelKind::kBlt;
  bool is_ours_ = false;
};

// What transformers' settings mean. Collects problems under the keys of `root`.
ModelConfig from_transformers(const nlohmann::json& root, Errors& errors);
EntropyModelConfig patcher_from_transformers(const nlohmann::json& root, Errors& errors);

// The text of config.json. dtype: the type that transformers loads the weights in unless it is told another.
std::string config_json(const ModelConfig& config, at::ScalarType dtype);
std::string config_json(const EntropyModelConfig& config, at::ScalarType dtype);

// What a directory that was saved with these settings says of them: defaults that depend on other settings are spelt out, and what
// transformers does not know is lost where it can express the rest.
ModelConfig as_read_back(const ModelConfig& config);
EntropyModelConfig as_read_back(const EntropyModelConfig& config);

}  // namespace blt
