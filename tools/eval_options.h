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
#include "tools/device.h"

namespace blt {

struct EvalOptions {
  std::filesystem::path model;
  std::vector<std::filesystem::path> data;
  DocumentFormat format = DocumentFormat::kAuto;
  std::string text_field = "text";
  int64_t sequence_bytes = DataConfig().sequence_bytes;
  std::optional<int64_t> stride;
  DeviceChoice device = DeviceChoice::kCpu;
  std::optional<std::filesystem::path> save_logits;
  std::optional<std::filesystem::path> per_byte;
  bool json = false;

  static void fields(auto& self, auto&& field) {
    field("model", self.model,
          "A model directory: of a Byte Latent Transformer, or of an entropy model alone.");
    field(
        "data", self.data,
        "Text files, JSON Lines, either one compressed (.zst, .gz), folders or globs; - is standard input.");
    field("format", self.format,
          "text: a file is one document. jsonl: a line is one. auto: by the file's name.");
    field("text_field", self.text_field, "The key of a JSON line that holds the document.");
    field("sequence_bytes", self.sequence_bytes, "Bytes that the model reads at a time; documents are cut.",
          at_least(1));
    field("stride", self.stride,
          "Bytes by which such a window moves on: the bytes before are context. Default: sequence-bytes, no "
          "overlap.",
          at_least(1));
    field("device", self.device, "Where to compute.");
    field("save_logits", self.save_logits,
          "Write logits [T, 260] and entropies [T] of the only sequence as safetensors; row i follows id i, "
          "id 0 is "
          "the BOS.");
    field("per_byte", self.per_byte, "Write a table: byte, bits, entropy, patch start.");
    field("json", self.json, "Print one JSON object.");
  }
  void validate(Errors& errors) const {
    if (stride && *stride > sequence_bytes)
      errors.add("stride", std::to_string(*stride) + " bytes are more than the " +
                               std::to_string(sequence_bytes) + " of a sequence");
  }
  int64_t step() const { return stride.value_or(sequence_bytes); }

  static constexpr Positional kPositional[] = {{"model", "MODEL_DIR"}};
  static constexpr std::string_view kRequired[] = {"data"};
};

}  // namespace blt
