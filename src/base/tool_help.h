// What --help and --help-config print.
#pragma once

#include <string>
#include <vector>

#include "blt/base/config_io.h"
#include "blt/base/tool.h"

namespace blt::config_detail {

// A field of the options, as the command line knows it.
struct ToolOption {
  ConfigField field;
  std::string path;  // "sequence_bytes"
  std::string flag;  // "--sequence-bytes"; of a positional, what the help shows: "MODEL_DIR"
  bool is_positional = false;
  bool is_required = false;
};

std::string help_text(const ToolSpec& spec, const std::vector<ToolOption>& options);
std::string config_help_text(const std::vector<FieldDoc>& fields);

}  // namespace blt::config_detail
