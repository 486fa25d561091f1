// Shows how a text is cut into patches: in colours, as JSON, or as a picture of entropies.
#include <algorithm>
#include <iostream>
#include <optional>
#include <variant>

#include "blt/base/error.h"
#include "blt/base/files.h"
#include "blt/data/documents.h"
#include "blt/patching/patcher.h"
#include "tools/patch_options.h"
#include "tools/patch_output.h"
#include "tools/patch_svg.h"
#include "tools/ready_model.h"

namespace blt {
namespace {

struct Rule {
  ReadyPatching patching;
  PatchRuleInfo info;
};

Rule rule_of_model(const std::filesystem::path& folder) {
  Rule rule{open_patching(folder), {.name = folder.string(), .threshold = {}}};
  if (const auto* entropy = std::get_if<EntropyPatching>(&rule.patching.config.rule))
    if (!entropy->monotonic) rule.info.threshold = entropy->threshold;
  return rule;
}

Rule rule_of_mode(const PatchOptions& options) {
  PatchingConfig config;
  if (options.mode == PatchMode::kSpace) config.rule = SpacePatching();
  if (options.mode == PatchMode::kByte) config.rule = BytePatching();
  if (options.mode == PatchMode::kStatic) {
    StaticPatching rule;
    rule.patch_bytes = options.patch_bytes.value_or(rule.patch_bytes);
    config.rule = rule;
  }
  config.max_patch_length = options.max_patch_length;
  return {{.config = config, .patcher = make_patcher(config)},
          {.name = "--mode " + std::string(name(*options.mode)), .threshold = {}}};
}

// The patches of one sequence that holds the text from `offset` on. The BOS, alone in its patch, is left out.
std::vector<TextPatch> cut(const Sequence& sequence, int64_t offset, const Rule& rule) {
  const std::vector<int32_t> ids = sequence.ids(/*eos=*/false);
  std::vector<float> entropies;
  if (rule.patching.entropies) entropies = rule.patching.entropies->scores({&ids, 1}).front().entropies;
  std::vector<int64_t> starts = rule.patching.patcher->starts(ids, entropies);
  const auto size = static_cast<int64_t>(ids.size());
  if (starts.back() != size) starts.push_back(size);
  std::vector<TextPatch> patches;
  for (size_t p = 1; p + 1 < starts.size(); ++p) {
    const int64_t first = starts[p] - 1, length = starts[p + 1] - starts[p];  // id i is byte i - 1
    TextPatch& patch = patches.emplace_back();
    patch.offset = offset + first;
    patch.bytes = sequence.bytes.substr(first, length);
    if (!entropies.empty())  // that of a byte stands at the id before it
      patch.entropies.assign(entropies.begin() + first, entropies.begin() + first + length);
  }
  return patches;
}

void run(const PatchOptions& options) {
  if (std::filesystem::is_directory(options.file()))
    throw Error(options.file().string() + ": is a folder; name one file");
  SourceConfig source;
  source.paths = {options.file()};
  source.format = DocumentFormat::kText;
  Documents documents(find_files(source), {.sequence_bytes = options.sequence_bytes});
  const Rule rule = options.mode ? rule_of_mode(options) : rule_of_model(options.inputs.front());
  const bool color =
      options.color == Color::kAuto ? terminal_takes_colors() : options.color == Color::kAlways;

  std::vector<TextPatch> drawn;
  int64_t bytes = 0, patches = 0;
  while (std::optional<Sequence> sequence = documents.next()) {
    if (options.max_bytes && bytes == *options.max_bytes) break;
    if (options.max_bytes)
      sequence->bytes.resize(std::min<size_t>(sequence->bytes.size(), *options.max_bytes - bytes));
    for (TextPatch& patch : cut(*sequence, bytes, rule)) {
      if (options.json)
        std::cout << json_line(patch);
      else if (!options.svg)
        std::cout << terminal_text(patch, patches % 2 == 0, color);
      ++patches;
      if (options.svg) drawn.push_back(std::move(patch));
    }
    bytes += static_cast<int64_t>(sequence->bytes.size());
    if (options.svg && bytes > kMostDrawnBytes)
      throw Error("--svg: more than " + std::to_string(kMostDrawnBytes) +
                  " bytes are too many to draw; name fewer with --max-bytes");
  }
  if (options.svg) write_file(*options.svg, patch_svg(drawn, rule.info));
  if (!options.json) std::cout << (options.svg ? "" : "\n") << patch_summary(bytes, patches);
  std::cout << std::flush;
}

}  // namespace
}  // namespace blt

int main(int argc, char** argv) {
  return blt::tool<blt::PatchOptions>("blt_patch", "Shows the patches of a text.", argc, argv, blt::run);
}
