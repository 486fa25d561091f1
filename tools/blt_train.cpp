// Trains an entropy model, a Byte Latent Transformer, or one after the other, from one YAML file.
#include <filesystem>
#include <optional>

#include "blt/base/signals.h"
#include "blt/base/tool.h"
#include "blt/train/run.h"

namespace {

struct Options : blt::ConfigOptions<blt::RunConfig> {
  std::optional<std::filesystem::path> init;

  static void fields(auto& self, auto&& field) {
    ConfigOptions::fields(self, field);
    field("init", self.init, "A model directory to start from: fine-tuning. It brings the model's shape.");
  }
};

}  // namespace

int main(int argc, char** argv) {
  return blt::tool<Options>("blt_train", "Trains Byte Latent Transformers and their entropy models.", argc,
                            argv, [](const Options& options) {
                              const blt::RunConfig config = options.load();
                              blt::catch_stop_signals();
                              const auto outcome = blt::run(config, options.init);
                              return outcome == blt::Trainer::Outcome::kStopped ? blt::kStopped : blt::kDone;
                            });
}
