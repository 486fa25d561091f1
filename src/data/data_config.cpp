#include "blt/data/data_config.h"

#include <fmt/format.h>

#include "blt/model/device.h"

namespace blt {

void SourceConfig::validate(Errors& errors) const {
  if (paths.empty()) errors.add("paths", "a source has at least one file, folder or glob");
  if (text_field.empty()) errors.add("text_field", "is the name of a key");
}

void DataConfig::validate(Errors& errors) const {
  if (sources.empty())
    errors.add("sources", "at least one source is needed, as in `sources: [{paths: [text.txt]}]`");
  const int64_t bytes = batch_bytes.value_or(batch_patches ? sequence_bytes : kDefaultBatchBytes);
  if (bytes < sequence_bytes)
    errors.add("batch_bytes", fmt::format("{} is less than sequence_bytes, {}: no sequence would stay whole",
                                          bytes, sequence_bytes));
  if (!is_device_name(entropy_device)) errors.add("entropy_device", kDeviceNames);
}

}  // namespace blt
