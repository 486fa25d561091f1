#include "blt/data/data_config.h"

#include <fmt/format.h>

#include "blt/data/filled_batch.h"
#include "blt/model/device.h"

namespace blt {

void SourceConfig::validate(Errors& errors) const {
  if (paths.empty()) errors.add("paths", "a source has at least one file, folder or glob");
  if (text_field.empty()) errors.add("text_field", "is the name of a key");
}

FilledSizes DataConfig::filled_sizes(bool patched) const {
  return {.ids = batch_bytes.value_or(kDefaultBatchBytes),
          .patches = patched ? batch_patches.value_or(0) : 0,
          .sequences = batch_sequences.value_or(0),
          .sequence_ids = sequence_bytes + 2};
}

void DataConfig::validate(Errors& errors) const {
  if (sources.empty())
    errors.add("sources", "at least one source is needed, as in `sources: [{paths: [text.txt]}]`");
  const int64_t bytes = batch_bytes.value_or(batch_patches ? sequence_bytes : kDefaultBatchBytes);
  if (bytes < sequence_bytes)
    errors.add("batch_bytes", fmt::format("{} is less than sequence_bytes, {}: no sequence would stay whole",
                                          bytes, sequence_bytes));
  if (batch_sequences) {
    if (!batch_bytes) errors.add("batch_sequences", "batches of one size need batch_bytes too");
    const std::string problem = batch_bytes ? filled_sizes(batch_patches.has_value()).problem() : "";
    if (!problem.empty()) errors.add("batch_sequences", "filler cannot make up all batches: " + problem);
  }
  if (!is_device_name(entropy_device)) errors.add("entropy_device", kDeviceNames);
}

}  // namespace blt
