// How ranks find each other.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "blt/train/group.h"

namespace blt {

// One process among those that train together, and the place where they meet: a TCP store at host:port.
struct RankPlace {
  int64_t rank = 0, ranks = 1;
  int64_t local_rank = 0, local_ranks = 1;  // among those on the same machine
  std::string host = "127.0.0.1";
  uint16_t port = 0;
  bool launcher_keeps_store = false;  // else rank 0
  // Which start of the ranks this is, where a launcher that starts them anew keeps one store for all: torchrun --max-restarts. What an earlier
  // start left there is not read.
  int64_t attempt = 0;
  // Whose ranks these are, where a batch system says so: those of another job, which came to the same host and port, are not taken for them.
  std::string job = {};

  bool keeps_store() const { return rank == 0 && !launcher_keeps_store; }
  // One rank of a launcher that keeps a store for it, as torchrun does, is a group too: it takes all ways that several take.
  bool is_of_group() const { return ranks > 1 || launcher_keeps_store; }
};

// A variable of the environment; none where it is not set.
using Environment = std::function<std::optional<std::string>(const std::string& name)>;
Environment process_environment();

// What the launcher says about this process: blt_train --nproc and torchrun (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT, LOCAL_RANK,
// LOCAL_WORLD_SIZE), Open MPI's mpirun (OMPI_COMM_WORLD_*), srun (SLURM_PROCID, SLURM_STEP_NUM_TASKS, SLURM_LOCALID; the store is at the
// step's first node), or the mpiexec of MPICH and Intel MPI (PMI_RANK, PMI_SIZE, MPI_LOCALRANKID, MPI_LOCALNRANKS). MASTER_ADDR and
// MASTER_PORT (default 29500; under srun plus a number from 0 to 9999 that follows from job and step) count with all of them, and TORCHELASTIC_RESTART_COUNT where torchrun keeps the store; mpirun and mpiexec over
// several machines need MASTER_ADDR.
// None where nothing is said. Throws blt::Error, naming the variable, where what is said makes no sense.
std::optional<RankPlace> rank_place(const Environment& environment = process_environment());

struct GroupTimeouts {
  double start_s = 300;     // until all ranks have come
  double transfer_s = 600;  // until a transfer has come through
};

// Meets the other ranks; returns when all are there, with Gloo between them, and NCCL between the GPUs of those whose tensors are there (not yet run). The machine's address is that of its host name, on one machine
// loopback; GLOO_SOCKET_IFNAME names another network interface. Throws blt::Error where ranks are missing in time, naming those that came
// and those that did not, or the store cannot be reached or does not answer; FailureTold where another rank says so. A stop signal
// (base/signals.h) ends the waiting. A launcher that keeps the store and ends, or does not answer for timeouts.transfer_s, stops the training
// as a stop signal does, and one rank says so.
std::shared_ptr<Group> join(const RankPlace& place, const GroupTimeouts& timeouts);

// Of a rank that cannot join because of what is wrong with its own settings, most often those of all ranks: whether it says so, or another
// does. Ranks that wait for it learn of it. Returns within seconds.
bool claim_failure(const RankPlace& place, const std::string& message);

// This rank failed because of another, which has said why: there is nothing to add.
class FailureTold : public Error {
 public:
  using Error::Error;
};

}  // namespace blt
