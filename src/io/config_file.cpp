#include <algorithm>
#include <sstream>
#include <string_view>
#include <utility>

#include "blt/base/config_io.h"
#include "blt/base/error.h"
#include "blt/base/files.h"
#include "io/hf_config.h"
#include "io/json.h"

namespace blt {

using nlohmann::json;

namespace {

// Where a setting of libblt stands in transformers' config.json. The first that fits the start of the path is
// taken, then one for the rest, which is a key of a transformer's section.
constexpr std::pair<std::string_view, std::string_view> kSections[] = {
    {"blt.local_encoder.", "encoder_config."},
    {"blt.local_decoder.", "decoder_config."},
    {"blt.latent_transformer.", "global_config."},
    {"entropy_model.", "patcher_config."},
    {"blt.local_dim", "encoder_config.hidden_size"},
    {"blt.window", "local_attention_window_len"},
    {"blt.ngram.sizes", "encoder_hash_byte_group_size"},
    {"blt.ngram.rows", "encoder_hash_byte_group_vocab"},
    {"blt.ngram.functions", "encoder_hash_byte_group_nb_functions"},
    {"blt.ngram.dropout", "encoder_hash_byte_group_dropout"},
    {"blt.", ""},
    {"patching.", ""}};
constexpr std::pair<std::string_view, std::string_view> kKeys[] = {
    {"layers", "num_hidden_layers"},  {"heads", "num_attention_heads"}, {"kv_heads", "num_key_value_heads"},
    {"ffn_dim", "intermediate_size"}, {"dim", "hidden_size"},           {"window", "sliding_window"},
    {"norm_eps", "rms_norm_eps"}};

std::string in_transformers_words(std::string path) {
  for (const auto& [ours, theirs] : kSections)
    if (path.starts_with(ours)) {
      path = std::string(theirs) + path.substr(ours.size());
      break;
    }
  const size_t key = path.rfind('.') + 1;  // npos + 1: the whole path
  for (const auto& [ours, theirs] : kKeys)
    if (path.substr(key) == ours) return path.substr(0, key) + std::string(theirs);
  return path;
}

// check_config for settings that were read from transformers' keys: problems name those.
template <class Config>
void check_transformers(const Config& config, const std::string& name) {
  try {
    check_config(config, name);
  } catch (const Error& e) {
    std::string problems, line;
    for (std::istringstream lines(e.what()); std::getline(lines, line);) {
      const size_t path = std::min(line.size(), name.size() + 2);  // "config.json: path message"
      const size_t end = std::min(line.find_first_of(" :", path), line.size());
      problems += (problems.empty() ? "" : "\n") + line.substr(0, path) +
                  in_transformers_words(line.substr(path, end - path)) + line.substr(end);
    }
    throw Error(problems);
  }
}

// Runs `read` on the settings of transformers in `text`, and checks the outcome as settings of libblt.
template <class Read>
auto read_transformers(const std::string& text, const std::string& name, Read read) {
  Errors errors;
  const auto config = read(parse_json(text, name), errors);
  std::string problems;
  for (const auto& [key, message] : errors.items())
    problems += (problems.empty() ? "" : "\n") + name + ": " + key + " " + message;
  if (!problems.empty()) throw Error(problems);
  check_transformers(config, name);
  return config;
}

// What is wrong with a path where a model directory should be.
std::string why_no_model(const std::filesystem::path& folder) {
  std::error_code ignored;
  if (!std::filesystem::exists(folder, ignored)) return ": there is no such model directory";
  if (!std::filesystem::is_directory(folder, ignored)) return ": is a file, not a model directory";
  std::string why = ": is no model directory: it has no config.json";
  if (std::filesystem::exists(folder / "latest" / "config.json", ignored))
    why += " (did you mean " + (folder / "latest").string() + "?)";
  return why;
}

std::string text_in(const std::filesystem::path& folder) {
  std::error_code error;  // other reasons than absence are read_file's to tell
  if (std::filesystem::status(folder / "config.json", error).type() == std::filesystem::file_type::not_found)
    throw Error(folder.string() + why_no_model(folder));
  return read_file(folder / "config.json");
}

}  // namespace

ConfigFile::ConfigFile(const std::filesystem::path& folder)
    : ConfigFile((folder / "config.json").string(), text_in(folder)) {}

ConfigFile::ConfigFile(std::string name, std::string text) : name_(std::move(name)), text_(std::move(text)) {
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

ModelConfig as_read_back(const ModelConfig& config) {
  return ConfigFile("config.json", config_json(config, at::kFloat)).model();
}

EntropyModelConfig as_read_back(const EntropyModelConfig& config) {
  return ConfigFile("config.json", config_json(config, at::kFloat)).entropy_model();
}

}  // namespace blt
