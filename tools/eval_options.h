// The command line of blt_eval.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "blt/base/tool.h"
#include "blt/data/data_config.h"
#include "blt/model/device.h"

namespace blt {

struct EvalOptions {
  std::filesystem::path model;
  std::vector<std::filesystem::path> data;
  DocumentFormat format = DocumentFormat::kAuto;
  std::string text_field = "text";
  int64_t sequence_bytes = DataConfig().sequence_bytes;
  std::optional<int64_t> stride;
  std::string device = "cpu";
  std::optional<std::filesystem::path> save_logits;
  std::optional<std::filesystem::path> per_byte;
  bool json = false;

  static void fields(auto& self, auto&& field) {
    field("model", self.model,
          "A model directory: of a Byte Latent Transformer, or of an entropy model alone.");
    field("data", self.data,
          "Text files, JSON Lines, either one compressed (.zst, .gz), Parquet files, folders or globs; - is "
          "standard "
          "input.");
    field("format", self.format,
          "text: a file is one document. jsonl: a line is one. parquet: a row is one. auto: by the file's "
          "name.");
    field("text_field", self.text_field,
          "The key of a JSON line, or the column of a Parquet file, that holds the document.");
    field("sequence_bytes", self.sequence_bytes, "Bytes that the model reads at a time; documents are cut.",
          at_least(1));
    field("stride", self.stride,
          "Windows of --sequence-bytes move on by this many bytes: what comes before is context, and each "
          "byte is "
          "scored once. Default: --sequence-bytes, no overlap.",
          at_least(1));
    field("device", self.device, "Where to compute: cpu, cuda, or one of several such as cuda:1.");
    field("save_logits", self.save_logits,
          "Write logits [T, 260] and entropies [T] to this file, as safetensors: row i is about what follows "
          "id "
          "i, and id 0 is the BOS. Only for a text that makes one sequence.");
    field("per_byte", self.per_byte,
          "Write a table to this file: a line for each byte with its bits, its entropy and whether a patch "
          "starts "
          "with it.");
    field("json", self.json, "Print the results as one line of JSON.");
  }
  void validate(Errors& errors) const {
    if (!is_device_name(device)) errors.add("device", kDeviceNames);
    if (stride && *stride > sequence_bytes)
      errors.add("stride", std::to_string(*stride) + " bytes are more than the " +
                               std::to_string(sequence_bytes) + " of --sequence-bytes");
    const auto place = [](const std::filesystem::path& path) {
      return std::filesystem::weakly_canonical(std::filesystem::absolute(path));
    };
    if (save_logits && per_byte && place(*save_logits) == place(*per_byte))
      errors.add("per_byte", "names the file of --save-logits; give each its own");
  }
  int64_t step() const { return stride.value_or(sequence_bytes); }

  static constexpr Positional kPositional[] = {{"model", "MODEL_DIR"}};
  static constexpr std::string_view kRequired[] = {"data"};
};

}  // namespace blt
