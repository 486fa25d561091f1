#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <string_view>

#include "blt/base/error.h"
#include "blt/train/rendezvous.h"

namespace blt {
namespace {

constexpr uint16_t kDefaultPort = 29500;
constexpr int64_t kPortsOfJobs = 10000;  // from there on

// The variables of one launcher.
struct Launcher {
  const char *name, *rank, *ranks, *local_rank, *local_ranks;
};
constexpr Launcher kTorchrun = {"torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"};
constexpr Launcher kSrun = {"srun", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", ""};
constexpr Launcher kMpirun = {"mpirun", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE",
                              "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"};
// Of MPICH and Intel MPI. srun may set these too, so it is asked before.
constexpr Launcher kMpiexec = {"mpiexec", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"};

int64_t number(const Environment& environment, const std::string& name, int64_t least, int64_t most) {
  const std::string text = environment(name).value_or("");
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < least || value > most)
    throw Error(fmt::format("environment: {} is '{}', not a number from {} to {}", name, text, least, most));
  return value;
}

int64_t number_or(const Environment& environment, const std::string& name, int64_t least, int64_t most,
                  int64_t otherwise) {
  return environment(name) ? number(environment, name, least, most) : otherwise;
}

// "a[01-03,7]-ib,b" -> "a01-ib"
std::string first_host(std::string_view nodes) {
  const size_t end = nodes.find_first_of("[,");
  std::string host(nodes.substr(0, end));
  if (end != nodes.npos && nodes[end] == '[') {
    const std::string_view inside = nodes.substr(end + 1);
    host += inside.substr(0, inside.find_first_of("-,]"));
    const std::string_view behind = inside.substr(std::min(inside.find(']'), inside.size() - 1) + 1);
    host += behind.substr(0, behind.find(','));
  }
  return host;
}

}  // namespace

Environment process_environment() {
  return [](const std::string& name) -> std::optional<std::string> {
    const char* value = std::getenv(name.c_str());
    if (value == nullptr) return std::nullopt;
    return value;
  };
}

std::optional<RankPlace> rank_place(const Environment& environment) {
  const Launcher* launcher = nullptr;
  for (const Launcher* candidate : {&kTorchrun, &kMpirun, &kSrun, &kMpiexec})
    if (launcher == nullptr && environment(candidate->rank) && environment(candidate->ranks))
      launcher = candidate;
  if (launcher == nullptr) return std::nullopt;

  constexpr int64_t kMostRanks = 1 << 20;
  RankPlace place;
  place.ranks = number(environment, launcher->ranks, 1, kMostRanks);
  place.rank = number(environment, launcher->rank, 0, place.ranks - 1);
  place.local_rank = number_or(environment, launcher->local_rank, 0, kMostRanks, place.rank);
  // srun says it as text about all nodes; on one it is the number of ranks.
  const bool one_node = launcher == &kSrun && environment("SLURM_STEP_NUM_NODES").value_or("1") == "1";
  place.local_ranks =
      one_node ? place.ranks : number_or(environment, launcher->local_ranks, 1, place.ranks, 1);
  int64_t port = kDefaultPort;
  if (launcher == &kSrun && environment("SLURM_JOB_ID")) {  // two jobs may have the same first machine
    constexpr int64_t kMost = int64_t{1} << 40;
    const int64_t job = number(environment, "SLURM_JOB_ID", 0, kMost),
                  step = number_or(environment, "SLURM_STEP_ID", 0, kMost, 0);
    place.job = fmt::format("{}.{}", job, step);
    port += (job + 101 * step) % kPortsOfJobs;
  }
  if (launcher == &kMpirun) place.job = environment("PMIX_NAMESPACE").value_or("");
  place.port = static_cast<uint16_t>(number_or(environment, "MASTER_PORT", 1, 65535, port));
  if (const auto host = environment("MASTER_ADDR"))
    place.host = *host;
  else if (launcher == &kSrun && environment("SLURM_STEP_NODELIST") && !one_node)
    place.host = first_host(*environment("SLURM_STEP_NODELIST"));
  else if (place.local_ranks != place.ranks)
    throw Error(
        fmt::format("environment: {} says that this is rank {} of {}, on several machines, but MASTER_ADDR, "
                    "where rank 0 runs, is not set",
                    launcher->name, place.rank, place.ranks));
  // torchrun's agent runs the store where it says so, and so does blt_train --nproc.
  place.launcher_keeps_store = environment("TORCHELASTIC_USE_AGENT_STORE").value_or("") == "True";
  constexpr int64_t kMostAttempts = int64_t{1} << 40;
  if (place.launcher_keeps_store)
    place.attempt = number_or(environment, "TORCHELASTIC_RESTART_COUNT", 0, kMostAttempts, 0);
  return place;
}

}  // namespace blt
