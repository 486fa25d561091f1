#include "tools/eval_output.h"

#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numbers>
#include <string>
#include <utility>
#include <vector>

#include "blt/base/error.h"
#include "blt/io/safetensors.h"

namespace blt {

PerByteTable::PerByteTable(const std::filesystem::path& path) : file_(path) {
  file_.write("byte\tbits\tentropy\tpatch_start\n");
}

void PerByteTable::add(const ScoredSequence& sequence) {
  const float* nll = sequence.nll.const_data_ptr<float>();
  auto start = sequence.starts.begin();
  std::string text;
  for (auto i = static_cast<size_t>(sequence.first); i < sequence.ids.size(); ++i) {
    text += fmt::format("{}\t{:.6g}\t", sequence.ids[i] - kByteOffset, nll[i - 1] / std::numbers::ln2);
    if (!sequence.entropies.empty()) text += fmt::format("{:.6g}", sequence.entropies[i - 1]);
    start = std::lower_bound(start, sequence.starts.end(), static_cast<int64_t>(i));
    if (!sequence.starts.empty())
      text += start != sequence.starts.end() && *start == static_cast<int64_t>(i) ? "\t1\n" : "\t0\n";
    else
      text += "\t\n";
  }
  file_.write(text);
}

void LogitsFile::add(const ScoredSequence& sequence) {
  if (logits_.defined())
    throw Error(
        "--save-logits: the text makes more than one sequence; give one document, and --sequence-bytes of at "
        "least its length");
  logits_ = sequence.logits.to(at::kCPU, at::kFloat).contiguous();
  if (!sequence.entropies.empty()) entropies_ = at::tensor(sequence.entropies);
}

void LogitsFile::commit() {
  std::vector<std::pair<std::string, at::Tensor>> tensors = {{"logits", logits_}};
  if (entropies_.defined()) tensors.emplace_back("entropies", entropies_);
  write_safetensors(path_, tensors);
}

std::string as_json(const EvalOptions& options, const Evaluation& result) {
  nlohmann::ordered_json line = {{"model", options.model.string()},
                                 {"bits_per_byte", result.bits_per_byte},
                                 {"bytes", result.bytes},
                                 {"patches", nullptr},
                                 {"mean_patch_bytes", nullptr},
                                 {"entropy_model_bits_per_byte", nullptr},
                                 {"documents", result.documents},
                                 {"sequences", result.sequences},
                                 {"sequence_bytes", options.sequence_bytes},
                                 {"stride", options.step()},
                                 {"seconds", result.seconds}};
  if (result.patches) {
    line["patches"] = result.patches->patches;
    line["mean_patch_bytes"] = result.patches->mean_patch_bytes();
  }
  if (result.entropy_model_bits_per_byte)
    line["entropy_model_bits_per_byte"] = *result.entropy_model_bits_per_byte;
  return line.dump() + "\n";
}

// Lines of 40 columns: a narrow window holds them.
std::string as_table(const EvalOptions& options, const Evaluation& result) {
  std::string text;
  text += fmt::format("bits per byte    {:.4f}\n", result.bits_per_byte);
  if (result.entropy_model_bits_per_byte)
    text += fmt::format("entropy model    {:.4f}\n", *result.entropy_model_bits_per_byte);
  if (result.patches)
    text += fmt::format("patches          {}, {:.3f} bytes each\n", result.patches->patches,
                        result.patches->mean_patch_bytes());
  text += fmt::format("text             {} bytes\n", result.bytes);
  text += fmt::format("documents        {}\n", result.documents);
  if (options.step() == options.sequence_bytes)
    text += fmt::format("sequences        {} of up to {} bytes\n", result.sequences, options.sequence_bytes);
  else
    text += fmt::format("windows          {} bytes, moved by {}\n", options.sequence_bytes, options.step());
  text += fmt::format("time             {:.2f} s, {:.1f} kB/s\n", result.seconds,
                      static_cast<double>(result.bytes) / result.seconds / 1e3);
  return text;
}

}  // namespace blt
