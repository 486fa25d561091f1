// What blt_eval prints and writes.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <string>
#include <utility>

#include "blt/base/files.h"
#include "blt/eval/evaluate.h"
#include "tools/eval_options.h"

namespace blt {

// A table of every scored byte, tab-separated: byte (0 to 255), bits (-log2 of its probability), entropy (nats,
// of the id before it; empty where there are none) and patch_start (0 or 1; empty without patches).
class PerByteTable {
 public:
  explicit PerByteTable(const std::filesystem::path& path);

  void add(const ScoredSequence& sequence);
  void commit() { file_.commit(); }

 private:
  AtomicFile file_;
};

// Logits and entropies of the only sequence, as safetensors.
class LogitsFile {
 public:
  explicit LogitsFile(std::filesystem::path path) : path_(std::move(path)) {}

  // Throws blt::Error at the second sequence.
  void add(const ScoredSequence& sequence);
  // logits [T, V]; entropies [T] where there are any. Row i follows id i; id 0 is the BOS.
  void commit();

 private:
  std::filesystem::path path_;
  at::Tensor logits_, entropies_;
};

// The measurements for programs, and for people.
std::string as_json(const EvalOptions& options, const Evaluation& result);
std::string as_table(const EvalOptions& options, const Evaluation& result);

}  // namespace blt
