// Which text, and how it becomes batches.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "blt/base/config.h"

namespace blt {

enum class DocumentFormat { kAuto, kText, kJsonLines };
template <>
struct EnumNames<DocumentFormat> {
  static constexpr std::pair<DocumentFormat, std::string_view> kValues[] = {
      {DocumentFormat::kAuto, "auto"},
      {DocumentFormat::kText, "text"},
      {DocumentFormat::kJsonLines, "jsonl"}};
};

// One corpus.
struct SourceConfig {
  std::vector<std::filesystem::path> paths = {};
  double weight = 1.0;
  DocumentFormat format = DocumentFormat::kAuto;
  std::string text_field = "text";

  static void fields(auto& self, auto&& field) {
    field("paths", self.paths,
          "Files, folders (all files inside, hidden ones left out) or globs, plain or compressed (.gz, "
          ".zst); - is standard input.");
    field("weight", self.weight,
          "Share of the bytes among the sources; a source that ends begins again. Not for validation.",
          above(0));
    field(
        "format", self.format,
        "text: a file is one document, any bytes. jsonl: a line is one. auto: jsonl for .jsonl and .ndjson.");
    field("text_field", self.text_field, "The key of a JSON line that holds the document.");
  }
  void validate(Errors& errors) const;
};

struct DataConfig {
  std::vector<SourceConfig> sources = {};
  std::vector<SourceConfig> validation = {};
  int64_t sequence_bytes = 4096;
  bool eos = true;
  int64_t batch_bytes = 16384;
  std::optional<int64_t> batch_patches = {};
  int64_t shuffle_sequences = 16384;
  int64_t seed = 1;
  int64_t entropy_batch_bytes = 16384;
  int64_t patch_cache_mib = 1024;

  static void fields(auto& self, auto&& field) {
    field("sources", self.sources, "What to train on.");
    field("validation", self.validation,
          "Held-out text, read once in order at each validation; none: no validation.");
    field("sequence_bytes", self.sequence_bytes,
          "Documents are cut into sequences of at most this many bytes.", at_least(1));
    field("eos", self.eos, "Whether an end-of-document id follows a document's last byte.");
    field("batch_bytes", self.batch_bytes, "A batch holds whole sequences of at most this many bytes.",
          at_least(1));
    field(
        "batch_patches", self.batch_patches,
        "A batch holds this many patches instead (or one fewer), cutting sequences between patches. Only for "
        "models that read patches.",
        at_least(2));
    field("shuffle_sequences", self.shuffle_sequences,
          "Sequences of each source that are read ahead and shuffled, a block after the other; 0: text comes "
          "in its order.",
          at_least(0));
    field("seed", self.seed, "Seed of the order.", at_least(0));
    field("entropy_batch_bytes", self.entropy_batch_bytes, "Bytes that the entropy model reads at once.",
          at_least(1));
    field("patch_cache_mib", self.patch_cache_mib,
          "Memory for patches found by entropies, kept for the next time the text comes by.", at_least(0));
  }
  void validate(Errors& errors) const;
};

}  // namespace blt
