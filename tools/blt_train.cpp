// Trains an entropy model, a Byte Latent Transformer, or one after the other, from one YAML file.
#include <filesystem>
#include <optional>
#include <string>

#include "blt/base/log.h"
#include "blt/base/signals.h"
#include "blt/base/tool.h"
#include "blt/train/run.h"

namespace {

struct Options : blt::ConfigOptions<blt::RunConfig> {
  std::optional<std::filesystem::path> init;
  std::optional<std::string> resume;
  bool check = false;

  static void fields(auto& self, auto&& field) {
    ConfigOptions::fields(self, field);
    field(
        "init", self.init,
        "A model directory to start from: fine-tuning. It brings the model's shape, and its patching unless "
        "the config names another rule or threshold.");
    field("resume", self.resume,
          "Go on from a checkpoint: auto is the newest whole one in the output folder (where there is none, "
          "the run "
          "starts); else a checkpoint, or the folder of a run. The rest of the command is that of the first "
          "start; "
          "what it says about train and data.validation may change.");
    field("check", self.check, "Build everything, train one step of each model, and write nothing.");
  }
  static std::string config_comment(const blt::RunConfig& config) { return blt::cost_table(config); }
};

}  // namespace

int main(int argc, char** argv) {
  return blt::tool<Options>(
      "blt_train", "Trains Byte Latent Transformers and their entropy models.", argc, argv,
      [](const Options& options) {
        const blt::RunConfig config = options.load();
        blt::catch_stop_signals();
        const auto outcome =
            blt::run(config, {.init = options.init, .resume = options.resume, .check = options.check});
        if (outcome == blt::Trainer::Outcome::kFinished) return blt::kDone;
        blt::log_info("stopped; go on with --resume auto");
        return blt::kStopped;
      });
}
