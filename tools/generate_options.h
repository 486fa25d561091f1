// The command line of blt_generate.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "blt/base/tool.h"
#include "blt/generate/sampler.h"
#include "blt/model/device.h"

namespace blt {

struct GenerateToolOptions : SamplerConfig {
  std::filesystem::path model;
  std::optional<std::string> prompt;
  std::optional<std::filesystem::path> prompt_file;
  int64_t max_bytes = 0;
  bool ignore_eos = false;
  std::string device = "cpu";

  static void fields(auto& self, auto&& field) {
    field("model", self.model,
          "A model directory: of a Byte Latent Transformer, or of an entropy model alone.");
    field("prompt", self.prompt, "The text to go on from; may be empty. Give this or --prompt-file.");
    field("prompt_file", self.prompt_file,
          "A file that holds the prompt, byte for byte; - is standard input.");
    field("max_bytes", self.max_bytes,
          "Bytes to generate at most; a special id that the model chooses counts as one and is not printed.",
          at_least(1));
    field("ignore_eos", self.ignore_eos, "Go on when the model says that the document ends.");
    field("device", self.device,
          "Where to compute, the entropy model too: cpu, cuda, or one of several such as cuda:1. Rounding "
          "differs between them, so a choice that hangs by it may be another.");
    SamplerConfig::fields(self, field);
  }
  void validate(Errors& errors) const {
    SamplerConfig::validate(errors);
    if (!is_device_name(device)) errors.add("device", kDeviceNames);
    if (prompt && prompt_file) errors.add("prompt_file", "cannot be given together with --prompt");
    if (!prompt && !prompt_file)
      errors.add("", "--prompt or --prompt-file is missing; --prompt '' starts from nothing");
  }

  static constexpr Positional kPositional[] = {{"model", "MODEL_DIR"}};
  static constexpr std::string_view kRequired[] = {"max_bytes"};
};

}  // namespace blt
