// Trains an entropy model, a Byte Latent Transformer, or one after the other, from one YAML file.
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "blt/base/error.h"
#include "blt/base/log.h"
#include "blt/base/signals.h"
#include "blt/base/tool.h"
#include "blt/train/dry_run.h"
#include "blt/train/launch.h"
#include "blt/train/rendezvous.h"
#include "blt/train/run.h"

namespace {

constexpr const char* kStopping =
    "stopping: this step (or the validation under way) ends, then everything is saved; Ctrl-C after "
    "this ends at once, without saving";

constexpr const char* kStoppedAtStart = "stopped before anything was begun";

struct Options : blt::ConfigOptions<blt::RunConfig> {
  std::optional<std::filesystem::path> init;
  std::optional<std::string> resume;
  bool check = false;
  std::optional<int64_t> profile;
  bool nvtx = false;
  std::optional<int64_t> nproc;
  bool dry_run = false;
  std::optional<int64_t> world;
  std::optional<double> memory_gib, tflops, bandwidth_gbps;

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
    field("profile", self.profile,
          "Record so many steps of each model's training, after a few that warm up: a table of where their "
          "time goes, and a trace for ui.perfetto.dev in the output folder, one of each rank. Then the run "
          "goes on.",
          blt::at_least(1));
    field("nvtx", self.nvtx,
          "Of --profile: steps, modules and operators become NVTX ranges, for Nsight, instead.");
    field("nproc", self.nproc,
          "Train with so many processes (ranks) on this machine. Without it, the environment that torchrun, "
          "srun and mpirun set is understood.",
          blt::at_least(1));
    field("dry_run", self.dry_run,
          "Print what the run takes on each rank, memory by kind and traffic, without allocating or reading "
          "anything.");
    field("world", self.world, "Of a dry run: so many ranks. Default: 1.", blt::at_least(1));
    field("memory_gib", self.memory_gib,
          "Of a dry run: the memory of a rank. Where the run does not fit, the exit code is 4.",
          blt::above(0));
    field("tflops", self.tflops,
          "Of a dry run: 10^12 FLOP/s that a rank reaches, measured; then the step's time is printed.",
          blt::above(0));
    field("bandwidth_gbps", self.bandwidth_gbps,
          "Of a dry run: 10^9 bits/s at which a rank receives while it sends as many, measured.",
          blt::above(0));
  }
  void validate(blt::Errors& errors) const {
    ConfigOptions::validate(errors);
    if (!dry_run && (world || memory_gib || tflops || bandwidth_gbps))
      errors.add("", "--world, --memory-gib, --tflops and --bandwidth-gbps are for --dry-run");
    if (dry_run && (init || resume || check || profile || nproc))
      errors.add("dry_run",
                 "goes with the config alone: without --init, --resume, --check, --profile and --nproc");
    if (check && profile) errors.add("check", "takes one step and writes nothing: leave out --profile");
    if (nvtx && !profile) errors.add("nvtx", "is about the steps of --profile: say how many");
  }
  static std::string config_comment(const blt::RunConfig& config) { return blt::cost_table(config); }
};

// Those of a rank: the same without --nproc.
std::vector<std::string> rank_arguments(int argc, char** argv) {
  std::vector<std::string> result;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--nproc")
      ++i;
    else if (!argument.starts_with("--nproc="))
      result.push_back(argument);
  }
  return result;
}

// All ranks make the same mistake, or this one alone: one says it.
blt::RunConfig load(const Options& options, const std::optional<blt::RankPlace>& place) {
  try {
    return options.load();
  } catch (const blt::Error& e) {
    if (!place || blt::claim_failure(*place, e.what())) throw;
    throw blt::FailureTold(e.what());
  }
}

int dry_run(const Options& options) {
  const blt::DryRun plan = blt::dry_run(options.load(), {.world = options.world.value_or(1),
                                                         .memory_gib = options.memory_gib,
                                                         .tflops = options.tflops,
                                                         .bandwidth_gbps = options.bandwidth_gbps});
  std::cout << plan.page;
  return static_cast<int>(plan.fits ? blt::kDone : blt::kDoesNotFit);
}

blt::GroupTimeouts timeouts(const blt::ParallelConfig& config) {
  return {.start_s = config.start_timeout_s, .transfer_s = config.timeout_s};
}

}  // namespace

int main(int argc, char** argv) {
  std::shared_ptr<blt::Group> group;
  const auto train = [&](const Options& options) {
    if (options.dry_run) return dry_run(options);
    const std::optional<blt::RankPlace> place = blt::rank_place();
    const bool speaks = !place || place->rank == 0;  // rank 0 says what all would
    if (!speaks) setenv("BLT_LOG", "error", /*overwrite=*/0);
    std::optional<blt::StopAtOnce> starting(std::in_place, speaks ? kStoppedAtStart : "");
    blt::catch_stop_signals(speaks ? kStopping : "");
    try {
      const blt::RunConfig config = load(options, place);
      if (options.nproc && place)
        throw blt::Error(
            "--nproc starts ranks, but this process is one already: the environment says so (RANK)");
      if (options.nproc && *options.nproc > 1) return blt::launch(*options.nproc, rank_arguments(argc, argv));
      starting.reset();
      if (place && place->is_of_group()) group = blt::join(*place, timeouts(config.parallel));
      const auto outcome =
          blt::run(config, {.init = options.init,
                            .resume = options.resume,
                            .check = options.check,
                            .profile = {.steps = options.profile.value_or(0), .nvtx = options.nvtx},
                            .local_rank = place ? place->local_rank : 0,
                            .group = group});
      if (outcome == blt::Trainer::Outcome::kFinished) return static_cast<int>(blt::kDone);
    } catch (const blt::FailureTold&) {
      return static_cast<int>(blt::kFailed);
    }
    blt::log_info("stopped; go on with --resume auto");
    return static_cast<int>(blt::kStopped);
  };
  const int code = blt::tool<Options>(
      "blt_train", "Trains Byte Latent Transformers and their entropy models.", argc, argv, train);
  if (code == blt::kFailed && group) std::_Exit(code);  // the group may wait for ranks that hang
  return code;
}
