// Measures a model on text: bits per byte, beside those of its entropy model, and how the text was patched.
#include <iostream>
#include <optional>

#include "blt/base/tool.h"
#include "blt/data/documents.h"
#include "blt/eval/evaluate.h"
#include "blt/model/device.h"
#include "tools/eval_options.h"
#include "tools/eval_output.h"
#include "tools/ready_model.h"

namespace blt {
namespace {

EvaluatedModel evaluated(const ReadyModel& ready, at::Device device) {
  EvaluatedModel model{.forward = {}, .device = device};
  if (ready.blt.is_empty())
    model.forward = [alone = ready.entropy_model](const Batch& batch) mutable {
      return alone->forward(batch);
    };
  else
    model.forward = [blt = ready.blt](const Batch& batch) mutable { return blt->forward(batch); };
  model.patcher = ready.patching.patcher;
  model.entropies = ready.patching.entropies;
  return model;
}

void run(const EvalOptions& options) {
  const at::Device device = find_device(options.device, "--device " + options.device);
  SourceConfig source;
  source.paths = options.data;
  source.format = options.format;
  Documents documents(find_files(source),
                      {.sequence_bytes = options.step(), .text_field = options.text_field, .file_order = {}});
  const EvaluatedModel model = evaluated(open_model(options.model, device, at::kCPU), device);

  std::optional<PerByteTable> table;
  std::optional<LogitsFile> logits;
  if (options.per_byte) table.emplace(*options.per_byte);
  if (options.save_logits) logits.emplace(*options.save_logits);
  EvaluateOptions how;
  how.context_bytes = options.sequence_bytes - options.step();
  if (table || logits)
    how.observe = [&](const ScoredSequence& sequence) {
      if (table) table->add(sequence);
      if (logits) logits->add(sequence);
    };
  const Evaluation result = evaluate(model, documents, how);
  if (table) table->commit();
  if (logits) logits->commit();
  std::cout << (options.json ? as_json(options, result) : as_table(options, result)) << std::flush;
}

}  // namespace
}  // namespace blt

int main(int argc, char** argv) {
  return blt::tool<blt::EvalOptions>("blt_eval", "Measures the bits per byte of a model on text.", argc, argv,
                                     blt::run);
}
