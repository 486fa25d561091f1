// How ranks share the work of a step. The trainer knows this interface, and not how many ranks there are.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "blt/base/config.h"
#include "blt/train/gradients.h"
#include "blt/train/group.h"
#include "blt/train/optimizer.h"

namespace blt {

// What ranks divide among themselves besides the data.
enum class Sharding {
  kNone,   // data parallel: every rank has everything
  kZero1,  // moments and masters of the optimizer: each rank moves its part of the parameters
  kZero2,  // gradients too
  kZero3,  // the parameters of the latent transformer's layers too
};
template <>
struct EnumNames<Sharding> {
  static constexpr std::pair<Sharding, std::string_view> kValues[] = {{Sharding::kNone, "none"},
                                                                      {Sharding::kZero1, "zero1"},
                                                                      {Sharding::kZero2, "zero2"},
                                                                      {Sharding::kZero3, "zero3"}};
};

// Where the rows of the n-gram tables are, and the optimizer's state of them.
enum class TablePlacement {
  kReplicated,  // every rank has every table
  kSharded,     // every rank has its share of the rows, and asks the others for theirs
};
template <>
struct EnumNames<TablePlacement> {
  static constexpr std::pair<TablePlacement, std::string_view> kValues[] = {
      {TablePlacement::kReplicated, "replicated"}, {TablePlacement::kSharded, "sharded"}};
};

// What gradients travel in. They are added up in float32 in any case.
enum class WireType {
  kFloat32,   // as they were computed
  kBfloat16,  // rounded: half the bytes
};
template <>
struct EnumNames<WireType> {
  static constexpr std::pair<WireType, std::string_view> kValues[] = {{WireType::kFloat32, "float32"},
                                                                      {WireType::kBfloat16, "bfloat16"}};
};

// How long something may take, in seconds: all clocks and stores count as far as eleven days, in milliseconds.
constexpr Rule kSomeSeconds{.low = 0, .high = 1e6, .low_excluded = true};

struct ParallelConfig {
  Sharding sharding = Sharding::kNone;
  TablePlacement tables = TablePlacement::kReplicated;
  WireType gradient_dtype = WireType::kFloat32;
  double bucket_mib = 25;
  bool overlap = true;
  double start_timeout_s = 300;
  double timeout_s = 600;

  int64_t bucket_bytes() const;

  static void fields(auto& self, auto&& field) {
    field(
        "sharding", self.sharding,
        "What ranks divide among themselves, so that each holds its share. zero1: the optimizer's state; "
        "zero2: gradients too, which then travel with every batch of a step; zero3: the parameters of the "
        "latent transformer's layers too, which are put together for each use; none: nothing but the data.");
    field("tables", self.tables,
          "The n-gram tables that are trained. replicated: every rank has all rows; sharded: each has its "
          "share and its part of the optimizer's state, look-ups and gradients of rows travel in every step, "
          "and tables never do.");
    field("gradient_dtype", self.gradient_dtype,
          "What gradients are rounded to on their way between ranks, where they are added up in float32. "
          "bfloat16 halves what travels.");
    field("bucket_mib", self.bucket_mib,
          "Gradients travel in pieces of this size, each while the backward pass computes the next ones.",
          above(0));
    field(
        "overlap", self.overlap,
        "Whether transfers go on while a rank computes: gradients during the backward pass, parameters that "
        "a step of zero1 or zero2 moved during the next forward pass, those of zero3 during the layer "
        "before; false: each when it is needed, to see what that saves.");
    field("start_timeout_s", self.start_timeout_s,
          "Seconds until all ranks have to be there when a run starts.", kSomeSeconds);
    field("timeout_s", self.timeout_s,
          "Seconds that a transfer between ranks may take, waiting for the slowest included, before the run "
          "ends with an error that says which rank is missing.",
          kSomeSeconds);
  }
};

// One for each training. Every rank calls the same functions in the same order; all but the first few throw GroupError. Not thread-safe.
class Parallel {
 public:
  virtual ~Parallel() = default;
  Parallel(const Parallel&) = delete;
  Parallel& operator=(const Parallel&) = delete;

  Group& group() const { return *group_; }
  // Which part of each parameter this rank's optimizer moves.
  virtual Parts parts() const { return {}; }

  // The backward pass of one micro-batch; last: of the step. loss: [] this rank's share of a sum over all ranks.
  virtual void backward(const at::Tensor& loss, bool last) = 0;
  // The gradients of the step, of all ranks together: the parts of them that this rank's optimizer moves. Valid until the next backward().
  virtual Gradients finish_gradients() = 0;
  // [modules] float64: the squared norm of each of gradient_modules(), of all ranks' parts together.
  virtual at::Tensor squared_norms(const Gradients& gradients, std::span<const std::string> modules) {
    return blt::squared_norms(gradients, modules);
  }
  // Moves the parameters; all ranks read the same in the next forward pass, and, after make_whole(), anywhere.
  virtual void step(Optimizer& optimizer, const Gradients& gradients, const ClipResult& clip, double factor) {
    optimizer.step(gradients, clip, factor);
  }

  // What this rank moves of each parameter that takes gradients, by its name: all of it, or its part, flat; not copied, and there until the
  // next forward pass or make_whole().
  virtual std::map<std::string, at::Tensor> own_parameters() const;

  // Whether the next forward pass is a transfer: parameters are put together for each use, or those that a step moved are still to come. Then
  // all ranks have to compute the same number of passes, without gradients too.
  virtual bool computes_together() const { return false; }
  // From here until the next forward pass that records gradients every rank has whole parameters: to read them, to replace them, or to
  // compute by itself. Between steps.
  virtual void make_whole() {}

  // Bytes of the tensors that this rank keeps at this moment; row gradients of n-gram tables are not among them.
  struct Kept {
    int64_t parameters = 0, gradients = 0;
  };
  Kept kept() const;

 protected:
  Parallel(std::shared_ptr<Group> group, torch::nn::Module& module)
      : group_(std::move(group)), module_(module) {}

  torch::nn::Module& module() const { return module_; }
  // What kept() counts: what shares memory counts once, undefined ones are nothing.
  virtual std::vector<at::Tensor> kept_gradients() const;

 private:
  std::shared_ptr<Group> group_;
  torch::nn::Module& module_;
};

// For parameters of `module` that require gradients now; it must outlive the result. Gives all ranks the parameters of rank 0. What is divided
// of the parameters themselves is so from the first forward pass that records gradients on.
std::unique_ptr<Parallel> make_parallel(const ParallelConfig& config, std::shared_ptr<Group> group,
                                        torch::nn::Module& module);

}  // namespace blt
