// Goes on from a prompt: raw bytes on standard output, each as soon as it is there.
#include <iostream>
#include <iterator>
#include <string>

#include "blt/base/error.h"
#include "blt/base/files.h"
#include "blt/base/tool.h"
#include "blt/generate/generator.h"
#include "blt/model/device.h"
#include "tools/generate_options.h"
#include "tools/ready_model.h"

namespace blt {
namespace {

std::string prompt_of(const GenerateToolOptions& options) {
  if (options.prompt) return *options.prompt;
  if (*options.prompt_file != "-") return read_file(*options.prompt_file);
  std::string text(std::istreambuf_iterator<char>(std::cin), {});
  if (std::cin.bad()) throw Error("standard input: cannot read it");
  return text;
}

Generator generator_of(ReadyModel model) {
  if (model.blt.is_empty()) return Generator(model.entropy_model);
  freeze(*model.blt);
  Generator::Options options;
  options.reset_at_newline = model.patching.config.resets_at_newline();
  return Generator(model.blt, model.entropy_model, model.patching.patcher, options);
}

void run(const GenerateToolOptions& options) {
  const at::Device device = find_device(options.device, "--device " + options.device);
  const std::vector<int32_t> prompt = ids_of(prompt_of(options));
  const Generator generator = generator_of(open_model(options.model, device, device));
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
