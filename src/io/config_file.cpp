#include "blt/base/config_io.h"
#include "blt/base/error.h"
#include "blt/base/files.h"
#include "io/hf_config.h"
#include "io/json.h"

namespace blt {

using nlohmann::json;

namespace {

// Runs `read` on the settings of transformers in `text`, and checks the outcome as settings of libblt.
template <class Read>
auto read_transformers(const std::string& text, const std::string& name, Read read) {
  Errors errors;
  const auto config = read(parse_json(text, name), errors);
  std::string problems;
  for (const auto& [key, message] : errors.items())
    problems += (problems.empty() ? "" : "\n") + name + ": " + key + " " + message;
  if (!problems.empty()) throw Error(problems);
  check_config(config, name);
  return config;
}

}  // namespace

ConfigFile::ConfigFile(const std::filesystem::path& folder) : name_((folder / "config.json").string()) {
  if (!std::filesystem::exists(folder / "config.json"))
    throw Error(folder.string() + ": is no model directory: it has no config.json");
  text_ = read_file(folder / "config.json");
  const json root = parse_json(text_, name_);
  if (!root.is_object()) throw Error(name_ + ": is no JSON object");
  const auto type = root.find("model_type");
  if (type == root.end() || !type->is_string()) throw Error(name_ + ": model_type is missing or no text");
  const bool has_own_key = root.contains("libblt");
  const auto model_type = type->get<std::string>();
  is_ours_ = model_type == "libblt" || model_type == "libblt_entropy_model";
  if (model_type == "blt_patcher" || model_type == "libblt_entropy_model")
    kind_ = ModelKind::kEntropyModel;
  else if (model_type != "blt" && model_type != "libblt")
    throw Error(name_ + ": model_type is " + json_quoted(model_type) +
                ", but libblt reads blt, blt_patcher, libblt and libblt_entropy_model");
  if (is_ours_ && !has_own_key) throw Error(name_ + ": the key libblt is missing, which describes the model");
  if (!is_ours_ && has_own_key)
    throw Error(name_ + ": has the key libblt, but model_type " + json_quoted(model_type) +
                ", which transformers' keys describe; remove one of them");
}

ModelConfig ConfigFile::model() const {
  if (is_ours_) return parse_config<ModelConfig>(text_, name_, "libblt");
  return read_transformers(text_, name_, from_transformers);
}

EntropyModelConfig ConfigFile::entropy_model() const {
  if (is_ours_) return parse_config<EntropyModelConfig>(text_, name_, "libblt");
  return read_transformers(text_, name_, patcher_from_transformers);
}

}  // namespace blt
