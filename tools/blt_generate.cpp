// Goes on from a prompt: raw bytes on standard output, each as soon as it is there.
#include <iostream>
#include <iterator>
#include <string>

#include "blt/base/error.h"
#include "blt/base/files.h"
#include "blt/base/tool.h"
#include "blt/generate/generator.h"
#include "blt/io/model_dir.h"
#include "blt/patching/patcher.h"
#include "tools/generate_options.h"

namespace blt {
namespace {

std::string prompt_of(const GenerateToolOptions& options) {
  if (options.prompt) return *options.prompt;
  if (*options.prompt_file != "-") return read_file(*options.prompt_file);
  std::string text(std::istreambuf_iterator<char>(std::cin), {});
  if (std::cin.bad()) throw Error("standard input: cannot read it");
  return text;
}

EntropyModel frozen(EntropyModel model) {
  if (!model.is_empty()) freeze(*model);
  return model;
}

Generator load(const std::filesystem::path& folder) {
  if (read_model_kind(folder) != ModelKind::kBlt) return Generator(frozen(load_entropy_model(folder)));
  const std::shared_ptr<const Patcher> patcher = make_patcher(read_model_config(folder).patching);
  static_cast<void>(patcher->rule());  // refuses rules that look ahead, before weights are read
  const LoadedModel loaded = load_model(folder);
  Blt blt = loaded.blt;
  freeze(*blt);
  Generator::Options options;
  options.reset_at_newline = loaded.config.patching.resets_at_newline();
  return Generator(blt, frozen(loaded.entropy_model), patcher, options);
}

void run(const GenerateToolOptions& options) {
  const std::vector<int32_t> prompt = ids_of(prompt_of(options));
  const Generator generator = load(options.model);
  const GenerateOptions how{
      .max_bytes = options.max_bytes, .ignore_eos = options.ignore_eos, .sampler = options};
  generate(generator, prompt, how, [](uint8_t byte) { std::cout.put(static_cast<char>(byte)).flush(); });
}

}  // namespace
}  // namespace blt

int main(int argc, char** argv) {
  return blt::tool<blt::GenerateToolOptions>("blt_generate", "Generates bytes that go on from a prompt.",
                                             argc, argv, blt::run);
}
