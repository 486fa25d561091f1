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
#include "blt/model/compute.h"

namespace blt {

struct FilledSizes;  // filled_batch.h

enum class DocumentFormat { kAuto, kText, kJsonLines, kParquet };
template <>
struct EnumNames<DocumentFormat> {
  static constexpr std::pair<DocumentFormat, std::string_view> kValues[] = {
      {DocumentFormat::kAuto, "auto"},
      {DocumentFormat::kText, "text"},
      {DocumentFormat::kJsonLines, "jsonl"},
      {DocumentFormat::kParquet, "parquet"}};
};

// What happens at a document or file that cannot be read.
enum class OnDataError {
  kFail,  // the run ends with an error that names it
  kSkip,  // it is passed over with a warning, and counted
};
template <>
struct EnumNames<OnDataError> {
  static constexpr std::pair<OnDataError, std::string_view> kValues[] = {{OnDataError::kFail, "fail"},
                                                                         {OnDataError::kSkip, "skip"}};
};

// One corpus.
struct SourceConfig {
  std::vector<std::filesystem::path> paths = {};
  double weight = 1.0;
  DocumentFormat format = DocumentFormat::kAuto;
  std::string text_field = "text";
  OnDataError on_error = OnDataError::kFail;

  static void fields(auto& self, auto&& field) {
    field("paths", self.paths,
          "Files, folders (all files inside, hidden ones left out) or globs, plain or compressed (.gz, "
          ".zst); - is standard input.");
    field("weight", self.weight,
          "Share of the bytes among the sources; a source that ends begins again. Not for validation.",
          above(0));
    field("format", self.format,
          "text: a file is one document, any bytes. jsonl: a line is one. parquet: a row is one, in builds "
          "with Arrow. auto: jsonl for .jsonl and .ndjson, parquet for .parquet.");
    field("text_field", self.text_field,
          "The key of a JSON line, or the column of a Parquet file, that holds the document.");
    field("on_error", self.on_error,
          "At a line that is no JSON, a line or row that has no text, or a damaged archive or Parquet file: "
          "end the run, or skip the line or row (of a file, the rest).");
  }
  void validate(Errors& errors) const;
};

// Patches that are short at first and grow to those of the patching rule.
struct PatchLengthConfig {
  double mean_patch_bytes = 2.0;
  int64_t text_bytes = 1 << 30;
  int64_t stages = 8;

  static void fields(auto& self, auto&& field) {
    field("mean_patch_bytes", self.mean_patch_bytes, "Mean patch length at the beginning.", above(1));
    field("text_bytes", self.text_bytes,
          "Bytes of training text, on all ranks, after which patches have their final length.", at_least(1));
    field("stages", self.stages, "Steps of equal size in which the mean length grows.", at_least(1));
  }
};

// Entropies that are kept for the next epoch, or the next run.
struct EntropyCacheConfig {
  std::optional<std::filesystem::path> folder = {};
  std::optional<int64_t> mib = {};

  static void fields(auto& self, auto&& field) {
    field("folder", self.folder,
          "Folder for entropies, 4 bytes a byte of text, that any number of runs and models may share; none: "
          "they are kept in memory while "
          "the run lasts.");
    field("mib", self.mib, "Most that is kept. Default: 1024 in memory, no limit in a folder.", at_least(0));
  }
};

struct DataConfig {
  std::vector<SourceConfig> sources = {};
  std::vector<SourceConfig> validation = {};
  int64_t sequence_bytes = 4096;
  bool eos = true;
  std::optional<int64_t> batch_bytes = {};
  std::optional<int64_t> batch_patches = {};
  std::optional<int64_t> batch_sequences = {};
  int64_t shuffle_sequences = 16384;
  int64_t seed = 1;
  std::optional<PatchLengthConfig> patch_length = {};
  EntropyCacheConfig entropy_cache = {};
  std::string entropy_device = "cpu";
  Compute entropy_compute = Compute::kFloat32;
  int64_t entropy_batch_bytes = 16384;
  std::optional<int64_t> threads = {};
  int64_t prefetch = 4;

  static void fields(auto& self, auto&& field) {
    field("sources", self.sources, "What to train on.");
    field("validation", self.validation,
          "Held-out text, read once in order at each validation; none: no validation.");
    field("sequence_bytes", self.sequence_bytes,
          "Documents are cut into sequences of at most this many bytes.", at_least(1));
    field("eos", self.eos, "Whether an end-of-document id follows a document's last byte.");
    field("batch_bytes", self.batch_bytes,
          "A batch is full with this many bytes: sequences are cut to fill it, in validation they stay "
          "whole. Default: 16384, no limit "
          "beside batch_patches.",
          at_least(1));
    field("batch_patches", self.batch_patches,
          "A batch is full with this many patches, which costs a latent transformer the same for any text; "
          "with batch_bytes too, at what "
          "comes first. Only for models that read patches.",
          at_least(2));
    field(
        "batch_sequences", self.batch_sequences,
        "Every batch of the training has the same sizes, for train.cuda_graph: batch_bytes ids (special ones "
        "and filler included), batch_patches patches (for models that read patches) and this many sequences, "
        "the "
        "last of them filler that takes no loss: at least batch_bytes / (sequence_bytes + 2), rounded up. "
        "None: batches are as large as their text.",
        at_least(2));
    field("shuffle_sequences", self.shuffle_sequences,
          "Sequences of each source that are read ahead and shuffled, a block after the other; 0: text comes "
          "in its order.",
          at_least(0));
    field("seed", self.seed, "Seed of the order.", at_least(0));
    field("patch_length", self.patch_length,
          "Training starts with shorter patches, of a lower threshold; none: always those of the patching "
          "rule, which has to be by entropy "
          "for this.");
    field("entropy_cache", self.entropy_cache, "Entropies that are kept.");
    field("entropy_device", self.entropy_device,
          "Where the entropy model runs ahead of the training: cpu, cuda (of several ranks on a machine, "
          "each its own), or one of "
          "several such as cuda:1, which may be the one that is trained on. Moves a few patches, since "
          "another device rounds "
          "otherwise; a model's users see those of the cpu.");
    field("entropy_compute", self.entropy_compute,
          "The type that it computes in. With bfloat16, faster on a GPU and slower on the CPU, entropies are "
          "off by up to 1/256, which moves "
          "more patches.");
    field("entropy_batch_bytes", self.entropy_batch_bytes,
          "Bytes that the entropy model reads at once. On a device, what a run has at its start stays.",
          at_least(1));
    field("threads", self.threads,
          "Threads that run the entropy model ahead of the training; 0: it runs when a batch is asked for. "
          "Default: LibTorch's number of threads on the CPU, 2 for another device, where no more passes run "
          "at once.",
          at_least(0));
    field("prefetch", self.prefetch,
          "Batches that are made ahead of the training; 0: each when it is asked for.", at_least(0));
  }
  // The budget in bytes that a batch has by default.
  static constexpr int64_t kDefaultBatchBytes = 16384;
  // Of batches with patches or of bytes alone, where batch_sequences is given.
  FilledSizes filled_sizes(bool patched) const;
  // What is wrong with batch_sequences where a model with patches is trained without batch_patches.
  static constexpr const char* kNeedsPatches =
      "batches of one size that have patches need data.batch_patches too";
  void validate(Errors& errors) const;
};

}  // namespace blt
