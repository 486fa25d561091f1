// The command line of blt_patch.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "blt/base/tool.h"
#include "blt/data/data_config.h"
#include "blt/patching/patching_config.h"

namespace blt {

// The rules that need no model.
enum class PatchMode { kSpace, kStatic, kByte };
template <>
struct EnumNames<PatchMode> {
  static constexpr std::pair<PatchMode, std::string_view> kValues[] = {
      {PatchMode::kSpace, "space"}, {PatchMode::kStatic, "static"}, {PatchMode::kByte, "byte"}};
};

enum class Color { kAuto, kAlways, kNever };
template <>
struct EnumNames<Color> {
  static constexpr std::pair<Color, std::string_view> kValues[] = {
      {Color::kAuto, "auto"}, {Color::kAlways, "always"}, {Color::kNever, "never"}};
};

struct PatchOptions {
  std::vector<std::filesystem::path> inputs;
  std::optional<PatchMode> mode;
  std::optional<int64_t> patch_bytes;
  std::optional<int64_t> max_patch_length;
  int64_t sequence_bytes = DataConfig().sequence_bytes;
  std::optional<int64_t> max_bytes;
  Color color = Color::kAuto;
  bool json = false;
  std::optional<std::filesystem::path> svg;

  static void fields(auto& self, auto&& field) {
    field("inputs", self.inputs,
          "A model directory and a file (plain, .gz or .zst; - is standard input); with --mode, the file "
          "alone.");
    field("mode", self.mode, "Cut by a rule that needs no model, instead of a model's own.");
    field("patch_bytes", self.patch_bytes,
          "Bytes of a patch of --mode static, the BOS before the text included. Default: 4.", at_least(1));
    field("max_patch_length", self.max_patch_length, "With --mode: a patch of this many bytes is full.",
          at_least(1));
    field("sequence_bytes", self.sequence_bytes,
          "Bytes that the entropy model reads at a time; the text is cut.", at_least(1));
    field("max_bytes", self.max_bytes, "Read only this many bytes of the text, the first.", at_least(1));
    field("color", self.color,
          "Show patches in colours. auto: on a terminal, where NO_COLOR is not set. Else patches end at |, "
          "and \\| and \\\\ are bytes of the text.");
    field("json", self.json, "Print a line of JSON for each patch.");
    field("svg", self.svg,
          "Draw the entropies of the text as a curve, the threshold as a line, the patches as bands, into "
          "this file.");
  }
  void validate(Errors& errors) const {
    const size_t wanted = mode ? 1 : 2;
    if (inputs.size() != wanted)
      errors.add("", mode ? "--mode wants one FILE" : "give MODEL_DIR FILE, or --mode RULE FILE");
    if (patch_bytes && mode != PatchMode::kStatic) errors.add("patch_bytes", "belongs to --mode static");
    if (max_patch_length && !mode)
      errors.add("max_patch_length", "belongs to --mode; a model brings its own");
  }
  const std::filesystem::path& file() const { return inputs.back(); }

  static constexpr Positional kPositional[] = {{"inputs", "[MODEL_DIR] FILE"}};
  static constexpr std::string_view kRequired[] = {"inputs"};
};

}  // namespace blt
