// What a trainer of the tests saves of its model.
#pragma once

#include <filesystem>
#include <fstream>
#include <functional>
#include <string>

#include "blt/io/model_content.h"
#include "blt/io/model_dir.h"
#include "blt/train/trainer.h"

namespace blt::testing {

// For TrainerParts::model_to_save: a model directory, without the files that only other programs read.
inline std::function<ModelToSave()> saved_model(const Blt& model) {
  return [model] {
    const ModelContent content = model_content(
        LoadedModel{.config = {.blt = model->config(), .patching = {.rule = BytePatching{}}}, .blt = model});
    const auto write = [](const std::string& text) {
      return [text](const std::filesystem::path& folder) { std::ofstream(folder / "config.json") << text; };
    };
    return ModelToSave{.tensors = content.tensors,
                       .write_rest = write(content.config),
                       .write_rest_of_average = write(content.float32_config)};
  };
}

}  // namespace blt::testing
