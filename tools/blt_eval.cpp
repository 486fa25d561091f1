// Measures a model on text: bits per byte, beside those of its entropy model, and how the text was patched.
#include <iostream>
#include <memory>
#include <optional>

#include "blt/base/tool.h"
#include "blt/data/documents.h"
#include "blt/data/entropy_model_source.h"
#include "blt/eval/evaluate.h"
#include "blt/io/model_dir.h"
#include "tools/device.h"
#include "tools/eval_options.h"
#include "tools/eval_output.h"

namespace blt {
namespace {

EntropyModel frozen(EntropyModel model, at::Device device) {
  model->to(device);
  freeze(*model);
  return model;
}

// The model of a directory: a Byte Latent Transformer with what cuts its patches, or an entropy model alone.
EvaluatedModel load(const std::filesystem::path& folder, at::Device device) {
  EvaluatedModel model{.forward = {}, .device = device};
  if (read_model_kind(folder) != ModelKind::kBlt) {
    EntropyModel alone = frozen(load_entropy_model(folder), device);
    model.forward = [alone](const Batch& batch) mutable { return alone->forward(batch); };
    return model;
  }
  const LoadedModel loaded = load_model(folder);
  Blt blt = loaded.blt;
  blt->to(device);
  blt->eval();
  model.forward = [blt](const Batch& batch) mutable { return blt->forward(batch); };
  model.patcher = make_patcher(loaded.config.patching);
  if (!loaded.entropy_model.is_empty()) {
    EntropyModelSource::Options how;
    how.reset_at_newline = loaded.config.patching.resets_at_newline();
    model.entropies = std::make_shared<EntropyModelSource>(frozen(loaded.entropy_model, device), how);
  }
  return model;
}

void run(const EvalOptions& options) {
  const at::Device device = checked_device(options.device);
  SourceConfig source;
  source.paths = options.data;
  source.format = options.format;
  Documents documents(find_files(source),
                      {.sequence_bytes = options.step(), .text_field = options.text_field, .file_order = {}});
  const EvaluatedModel model = load(options.model, device);

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
