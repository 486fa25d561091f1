// What moves the parameters: a rule for each of them, AdamW or Muon, over dense parameters and over the touched rows of n-gram tables.
#pragma once

#include <ATen/core/Tensor.h>

#include <torch/nn/module.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "blt/base/config.h"
#include "blt/train/gradients.h"

namespace blt {

// What becomes of the rows of an n-gram table that a step did not touch.
enum class TableUpdate {
  kExact,  // they move as a zero gradient would move them: what dense AdamW does
  kLazy,   // they stay, and so do their moments; a step costs what it touches
};
template <>
struct EnumNames<TableUpdate> {
  static constexpr std::pair<TableUpdate, std::string_view> kValues[] = {{TableUpdate::kExact, "exact"},
                                                                         {TableUpdate::kLazy, "lazy"}};
};

// How a parameter moves.
enum class RuleKind {
  kAdamW,  // by its own moments, element by element
  kMuon,   // a matrix as a whole, along its orthogonalized momentum
};
template <>
struct EnumNames<RuleKind> {
  static constexpr std::pair<RuleKind, std::string_view> kValues[] = {{RuleKind::kAdamW, "adamw"},
                                                                      {RuleKind::kMuon, "muon"}};
};

// Settings of the parameters whose names match a pattern.
struct ParameterGroup {
  std::string pattern = {};
  double learning_rate_scale = 1.0;
  std::optional<double> weight_decay = {};
  std::optional<RuleKind> rule = {};
  bool frozen = false;

  static void fields(auto& self, auto&& field) {
    field("pattern", self.pattern,
          "Names of parameters, such as local_decoder.*.weight; * is any text, ? any character.");
    field("learning_rate_scale", self.learning_rate_scale, "Multiplies their learning rate.", at_least(0));
    field("weight_decay", self.weight_decay, "Their decay. Default: the optimizer's, 0 for norm gains.",
          at_least(0));
    field("rule", self.rule,
          "What moves them. Default: optimizer.matrices for the matrices inside layers, adamw for all else.");
    field("frozen", self.frozen, "Whether they stay as they are.");
  }
  void validate(Errors& errors) const;
};

struct MuonConfig {
  double momentum = 0.95;
  int64_t iterations = 5;

  static void fields(auto& self, auto&& field) {
    field("momentum", self.momentum, "Decay of the sum of gradients, per step.", between(0, 0.999999));
    field("iterations", self.iterations, "Newton-Schulz steps that make the update orthogonal.", at_least(1));
  }
};

struct OptimizerConfig {
  double learning_rate = 4e-4;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.1;
  RuleKind matrices = RuleKind::kAdamW;
  MuonConfig muon = {};
  TableUpdate table_update = TableUpdate::kExact;
  std::vector<ParameterGroup> groups = {};

  static void fields(auto& self, auto&& field) {
    field("learning_rate", self.learning_rate, "Peak learning rate per step.", at_least(0));
    field("beta1", self.beta1, "Decay of the mean of gradients, per step.", between(0, 0.999999));
    field("beta2", self.beta2, "Decay of the mean of squared gradients, per step.", between(0, 0.999999));
    field("eps", self.eps, "Added to the root of the mean square.", above(0));
    field("weight_decay", self.weight_decay,
          "Decoupled decay per step, times the learning rate; matrices and tables only.", at_least(0));
    field("matrices", self.matrices,
          "What moves the matrices inside layers: adamw, or muon, which does without the mean of squared "
          "gradients. Embeddings, tables, norm gains and the output head move by adamw in any case. muon "
          "needs whole matrices: parallel.sharding none.");
    field("muon", self.muon, "Muon, where it moves something.");
    field("table_update", self.table_update,
          "Rows of n-gram tables that a step did not touch: exact moves them as dense AdamW would, lazy "
          "leaves them.");
    field("groups", self.groups,
          "Exceptions for some parameters; the first pattern that matches a name counts.");
  }
  bool uses(RuleKind rule) const;  // whether it may move something
};

// Applies what groups say about a module before it is trained: frozen parameters take no gradient from here on. Throws blt::Error when
// a pattern matches no parameter, or nothing is left to train.
void freeze_groups(torch::nn::Module& module, const std::vector<ParameterGroup>& groups);

// The elements [begin, end) of a flattened parameter; of an n-gram table, whole rows.
struct Part {
  int64_t begin = 0, end = 0;
};
// By name; parameters that are not there are whole.
using Parts = std::map<std::string, Part>;

class UpdateRule;

// An optimizer's tensors: of each parameter that has any those of its rule (AdamW: NAME.exp_avg and NAME.exp_avg_sq, Muon:
// NAME.momentum), NAME.step, and NAME.master of parameters that are bfloat16. Sorted by its name.
using OptimizerState = std::vector<std::pair<std::string, at::Tensor>>;
// As safetensors. Each at the shape of its parameter, .step [].
void save_optimizer(const std::filesystem::path& file, const OptimizerState& state);

// Moves each parameter by its rule (src/train/update_rule.h has them, with their sources). Decay on matrices and tables, not on norm
// gains, unless a group says otherwise. State is made at a parameter's first step. Parameters are float32, bfloat16 with a
// float32 master of each that the optimizer owns and moves (updates that are too small for bfloat16 add up there), or, on the CPU, float64
// with float64 state. Not thread-safe.
class Optimizer {
 public:
  // parts: what it moves of each parameter, has state of, and is given gradients of; the other ranks' optimizers see to the rest. Throws
  // blt::Error where muon would have to move parts.
  explicit Optimizer(OptimizerConfig config, Parts parts = {});
  ~Optimizer();

  // Turns the parameters of a module, float32, into bfloat16, and keeps the values of those that take gradients as their masters: from
  // here on a parameter is its master, rounded. Their gradients stay float32, so that those of several backward passes are added up in
  // float32. Before the first step. Throws c10::Error when a parameter is not float32.
  void narrow(torch::nn::Module& module);

  // One step with the peak learning rate times `factor`. A step whose clip found a NaN or an infinity changes
  // nothing.
  void step(const Gradients& gradients, const ClipResult& clip, double factor);

  // What the rules keep of a parameter once it has been moved, in bytes, without its master.
  int64_t state_bytes(const std::string& name, const at::Tensor& parameter) const;

  // Not copied. Of a part: flat.
  OptimizerState state() const;
  // Replaces the state. Masters in the file replace the parameters, whichever type those have now: a run can go on in the other one.
  // Where the file has none, the parameter stays, and so does its master. The file is about whole parameters (save_optimizer()).
  // Throws blt::Error when the file is damaged or is not about the parameters of `module`.
  void load(const std::filesystem::path& file, torch::nn::Module& module);

 private:
  struct State {
    const UpdateRule* rule = nullptr;      // null before the first step
    std::vector<at::Tensor> of_rule = {};  // rule->state_names()
    at::Tensor step = {};                  // [] float32: steps taken by this parameter
    at::Tensor master = {};                // of a bfloat16 parameter
  };
  // This optimizer's part of a tensor at the shape of the parameter.
  at::Tensor part(const std::string& name, const at::Tensor& whole) const;
  // What a step moves: the master, or `own`, this optimizer's part of the parameter. Its state is there afterwards.
  at::Tensor moved(State& state, const std::string& name, const at::Tensor& parameter,
                   const at::Tensor& own) const;

  const UpdateRule& rule_of(const std::string& name, const at::Tensor& parameter) const;

  OptimizerConfig config_;
  Parts parts_;
  std::map<RuleKind, std::unique_ptr<UpdateRule>> rules_;
  std::map<std::string, State> states_;
};

}  // namespace blt
