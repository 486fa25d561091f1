#include "io/weights.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>
#include <string_view>
#include <utility>

#include "blt/base/error.h"
#include "blt/base/files.h"
#include "blt/io/model_content.h"
#include "io/json.h"

namespace blt {

using nlohmann::json;

namespace {

// Where libblt's tree of modules and transformers' part. The first rule that fits is taken.
struct PrefixRule {
  std::string_view ours, theirs;
};
constexpr PrefixRule kBltRules[] = {
    {"local_encoder.embedding.byte_table", "model.local_encoder.embed_tokens.weight"},
    {"local_encoder.embedding.ngram_table", "model.encoder_hash_tok_embedding.weight"},
    {"latent_transformer.", "model.global_transformer."},
    {"lm_head.", "lm_head."},
    {"", "model."}};
constexpr PrefixRule kEntropyModelRules[] = {{"embedding.byte_table", "embed_tokens.weight"},
                                             {"embedding.ngram_table", "hash_tok_embedding.weight"},
                                             {"", ""}};
constexpr std::string_view kByteTable = "model.local_encoder.embed_tokens.weight";
constexpr std::string_view kNgramTable = "model.encoder_hash_tok_embedding.weight";

template <size_t N>
std::vector<NamedParameter> rename(const torch::nn::Module& module, const PrefixRule (&rules)[N],
                                   const std::string& prefix) {
  std::vector<NamedParameter> result;
  for (const auto& item : module.named_parameters()) {
    const std::string& name = item.key();
    const auto* rule =
        std::find_if(rules, rules + N, [&](const PrefixRule& r) { return name.starts_with(r.ours); });
    result.push_back({prefix + std::string(rule->theirs) + name.substr(rule->ours.size()), "", item.value()});
  }
  return result;
}

std::string shape(at::IntArrayRef sizes) { return fmt::format("[{}]", fmt::join(sizes, ", ")); }

}  // namespace

std::vector<NamedParameter> named_parameters(const BltImpl& model) {
  std::vector<NamedParameter> parameters = rename(model, kBltRules, "");
  // transformers keeps a tied table under the name of the output matrix alone.
  if (model.config().tie_embeddings)
    for (NamedParameter& parameter : parameters)
      if (parameter.name == kByteTable)
        parameter.other_name = std::exchange(parameter.name, "lm_head.weight");
  return parameters;
}

std::vector<NamedParameter> named_parameters(const EntropyModelImpl& model, const std::string& prefix) {
  return rename(model, kEntropyModelRules, prefix);
}

WeightFiles::WeightFiles(const std::filesystem::path& folder) : folder_(folder) {
  const auto single = folder / "model.safetensors", index = folder / "model.safetensors.index.json";
  if (std::filesystem::exists(single)) {
    const SafetensorsFile& file = open(single);
    for (const SafetensorsEntry& entry : file.entries()) tensors_[entry.name] = {&file, &entry};
  } else if (std::filesystem::exists(index)) {
    read_index(index);
  } else {
    throw Error(fmt::format("{}: has no weights: neither model.safetensors nor model.safetensors.index.json",
                            folder.string()));
  }
}

const SafetensorsFile& WeightFiles::open(const std::filesystem::path& path) {
  std::unique_ptr<SafetensorsFile>& file = files_[path.filename().string()];
  if (!file) file = std::make_unique<SafetensorsFile>(path);
  return *file;
}

void WeightFiles::read_index(const std::filesystem::path& index) {
  const json root = parse_json(read_file(index), index.string());
  if (!root.is_object() || !root.contains("weight_map") || !root["weight_map"].is_object())
    throw Error(index.string() + ": weight_map is missing or no object");
  for (const auto& [name, shard] : root["weight_map"].items()) {
    const std::string file_name = shard.is_string() ? shard.get<std::string>() : "";
    // A plain name: an index cannot make the reader open files elsewhere.
    if (file_name.empty() || std::filesystem::path(file_name).filename() != file_name || file_name == "." ||
        file_name == "..")
      throw Error(fmt::format("{}: tensor {}: {} is no name of a file in this folder", index.string(),
                              json_quoted(name), json_shown(shard)));
    const auto path = folder_ / file_name;
    if (!std::filesystem::exists(path))
      throw Error(fmt::format("{}: the shard {} is missing, which holds tensor {}", index.string(), file_name,
                              json_quoted(name)));
    const SafetensorsFile& file = open(path);
    const SafetensorsEntry* entry = file.find(name);
    if (entry == nullptr)
      throw Error(fmt::format("{}: has no tensor {}, which {} says it holds", path.string(),
                              json_quoted(name), index.filename().string()));
    tensors_[name] = {&file, entry};
  }
  for (const auto& [file_name, file] : files_)
    for (const SafetensorsEntry& entry : file->entries()) {
      const auto located = tensors_.find(entry.name);
      if (located == tensors_.end() || located->second.file != file.get())
        throw Error(fmt::format("{}: {} does not say that tensor {} is here", file->path().string(),
                                index.filename().string(), json_quoted(entry.name)));
    }
}

const WeightFiles::Located* WeightFiles::find(const NamedParameter& parameter) const {
  auto found = tensors_.find(parameter.name);
  if (found == tensors_.end() && !parameter.other_name.empty()) found = tensors_.find(parameter.other_name);
  return found == tensors_.end() ? nullptr : &found->second;
}

void WeightFiles::check(const std::vector<NamedParameter>& parameters, const std::string& prefix) const {
  std::vector<std::string> problems;
  std::set<std::string_view> expected;
  for (const NamedParameter& parameter : parameters) {
    expected.insert(parameter.name);
    if (!parameter.other_name.empty()) expected.insert(parameter.other_name);
    const Located* located = find(parameter);
    if (located == nullptr) {
      problems.push_back(fmt::format("{} {} is missing", parameter.name, shape(parameter.parameter.sizes())));
      continue;
    }
    const SafetensorsEntry& entry = *located->entry;
    if (parameter.parameter.sizes() != at::IntArrayRef(entry.sizes))
      problems.push_back(fmt::format("{} has shape {}, but config.json wants {}", entry.name,
                                     shape(entry.sizes), shape(parameter.parameter.sizes())));
    else if (!c10::isFloatingType(entry.dtype))
      problems.push_back(fmt::format("{} has dtype {}, but weights are floating point", entry.name,
                                     c10::toString(entry.dtype)));
    // Both names of a tied tensor are fine as long as they say the same.
    const auto other = parameter.other_name.empty() ? tensors_.end() : tensors_.find(parameter.other_name);
    if (other == tensors_.end() || other->second.entry == &entry) continue;
    if (!located->file->tensor(entry.name).equal(other->second.file->tensor(parameter.other_name)))
      problems.push_back(
          fmt::format("{} and {} are tied in config.json, but differ", parameter.name, parameter.other_name));
  }
  for (const auto& [name, located] : tensors_) {
    // transformers always has this table: empty where there are no n-grams.
    if (name == kNgramTable && located.entry->num_bytes == 0) continue;
    if (name.starts_with(prefix) && !expected.contains(name))
      problems.push_back(
          fmt::format("{} {} is not part of this model", json_quoted(name), shape(located.entry->sizes)));
  }
  if (problems.empty()) return;

  constexpr size_t kShown = 10;
  const size_t count = problems.size();
  if (count > kShown) {
    problems.resize(kShown);
    problems.push_back(fmt::format("and {} more", count - kShown));
  }
  throw Error(fmt::format(
      "{}: {} of the model's tensors {} not fit config.json:\n  {}",
      (folder_ / (files_.size() == 1 ? files_.begin()->first : "model.safetensors.index.json")).string(),
      count, count == 1 ? "does" : "do", fmt::join(problems, "\n  ")));
}

void WeightFiles::load(const std::vector<NamedParameter>& parameters) const {
  const at::NoGradGuard no_grad;
  for (const NamedParameter& parameter : parameters) {
    const Located& located = *find(parameter);
    parameter.parameter.copy_(located.file->tensor(located.entry->name));
  }
}

std::vector<std::pair<std::string, at::Tensor>> weight_tensors(
    const std::vector<NamedParameter>& parameters) {
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  bool has_ngram_table = false;
  at::Tensor byte_table;
  for (const NamedParameter& parameter : parameters) {
    has_ngram_table |= parameter.name == kNgramTable;
    if (parameter.name == kByteTable || parameter.other_name == kByteTable) byte_table = parameter.parameter;
    tensors.emplace_back(parameter.name, parameter.parameter);
  }
  // transformers always has this table, if an empty one.
  if (byte_table.defined() && !has_ngram_table) tensors.emplace_back(kNgramTable, byte_table.narrow(0, 0, 0));
  return tensors;
}

const std::map<std::string, std::string>& model_metadata() {
  static const std::map<std::string, std::string> metadata = {{"format", "pt"}};
  return metadata;
}

void write_weights(const std::filesystem::path& folder, const std::vector<NamedParameter>& parameters) {
  write_safetensors(folder / "model.safetensors", weight_tensors(parameters), model_metadata());
}

}  // namespace blt
