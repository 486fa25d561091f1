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

// What the moments of n-gram tables are kept in, where they have a number for each element.
enum class TableMoments {
  kFloat32,
  kBfloat16,  // rounded at random, so that they are right on average (ops/row_adamw.h)
};
template <>
struct EnumNames<TableMoments> {
  static constexpr std::pair<TableMoments, std::string_view> kValues[] = {
      {TableMoments::kFloat32, "float32"}, {TableMoments::kBfloat16, "bfloat16"}};
};

// What has a mean of squared gradients of its own in n-gram tables.
enum class SecondMoment {
  kElement,
  kRow,  // a row has one, the mean over its elements; float32
};
template <>
struct EnumNames<SecondMoment> {
  static constexpr std::pair<SecondMoment, std::string_view> kValues[] = {{SecondMoment::kElement, "element"},
                                                                          {SecondMoment::kRow, "row"}};
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
  // Bytes of state an element of a table: float32 8, or 4 with a second moment for each row; bfloat16 4, or 2.
  TableMoments table_moments = TableMoments::kFloat32;
  SecondMoment table_second_moment = SecondMoment::kElement;
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
          "gradients. Embeddings, tables, norm gains and the output head move by adamw in any case. With "
          "parallel.sharding, matrices that lie across ranks travel in every step of muon.");
    field("muon", self.muon, "Muon, where it moves something.");
    field("table_update", self.table_update,
          "Rows of n-gram tables that a step did not touch: exact moves them as dense AdamW would, lazy "
          "leaves them.");
    field(
        "table_moments", self.table_moments,
        "What the moments of n-gram tables are kept in: float32, 8 bytes an element, or bfloat16, 4, rounded "
        "at random so that small changes add up on average. Goes with all of table_update, "
        "table_second_moment, compute and parallel; a resume keeps it.");
    field(
        "table_second_moment", self.table_second_moment,
        "The mean of squared gradients in n-gram tables: one for each element, or one for each row, float32, "
        "which leaves 4 bytes an element, with table_moments bfloat16 2. A resume keeps it.");
    field("groups", self.groups,
          "Exceptions for some parameters; the first pattern that matches a name counts.");
  }
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
class WholeMatrices;

// An optimizer's tensors: of each parameter that has any those of its rule (AdamW: NAME.exp_avg and NAME.exp_avg_sq, Muon:
// NAME.momentum), NAME.step, and NAME.master of parameters that are bfloat16. Sorted by its name.
struct OptimizerTensor {
  std::string name;
  at::Tensor tensor;
  bool is_by_row = false;  // one number for each row of the parameter, else its shape, or [] (.step)
};
using OptimizerState = std::vector<OptimizerTensor>;
// As safetensors, each of the whole parameter.
void save_optimizer(const std::filesystem::path& file, const OptimizerState& state);

// Moves each parameter by its rule (src/train/update_rule.h has them, with their sources). Decay on matrices and tables, not on norm
// gains, unless a group says otherwise. State is made at a parameter's first step. Parameters are float32, bfloat16 with a
// float32 master of each that the optimizer owns and moves (updates that are too small for bfloat16 add up there), or, on the CPU, float64
// with float64 state; of float64 n-gram tables the moments cannot be bfloat16. Not thread-safe.
class Optimizer {
 public:
  // parts: what it moves of each parameter, has state of, and is given gradients of; the other ranks' optimizers see to the rest. seed: of
  // the rounding of bfloat16 state, which does not depend on the parts.
  explicit Optimizer(OptimizerConfig config, Parts parts = {}, int64_t seed = 0);
  ~Optimizer();

  // Turns the parameters of a module, float32, into bfloat16, and keeps the values of those that take gradients as their masters: from
  // here on a parameter is its master, rounded. Their gradients stay float32, so that those of several backward passes are added up in
  // float32. Before the first step. Throws c10::Error when a parameter is not float32.
  void narrow(torch::nn::Module& module);

  // One step with the peak learning rate times `factor`. A step whose clip found a NaN or an infinity changes
  // nothing.
  void step(const Gradients& gradients, const ClipResult& clip, double factor);
  // The same where this optimizer has parts of matrices that muon moves (src/train/whole_matrices.h). All ranks take the step together.
  void step(const Gradients& gradients, const ClipResult& clip, double factor, const WholeMatrices& matrices);

  // Whether a step moves rows of n-gram tables without a gradient too.
  bool moves_all_rows() const { return config_.table_update == TableUpdate::kExact; }
  // Of this optimizer's part of a parameter, flat, or of all of it; undefined where there is none. Not copied, and there until load().
  at::Tensor master(const std::string& name) const;
  // What moves a parameter.
  RuleKind rule_kind(const std::string& name, const at::Tensor& parameter) const;
  // What the rules keep of a parameter once it has been moved, in bytes, without its master.
  int64_t state_bytes(const std::string& name, const at::Tensor& parameter) const;

  // Not copied. Of a part: flat.
  OptimizerState state() const;
  // Replaces the state. Masters in the file replace the parameters, whichever type those have now: a run can go on in the other one.
  // Where the file has none, the parameter stays, and so does its master. The file is about whole parameters (save_optimizer()).
  // Throws blt::Error when the file is damaged or is not about the parameters of `module`, or has them in another type or shape than this
  // optimizer's config says (table_moments, table_second_moment): nothing is converted.
  void load(const std::filesystem::path& file, torch::nn::Module& module);

 private:
  struct State {
    const UpdateRule* rule = nullptr;      // null before the first step
    std::vector<at::Tensor> of_rule = {};  // rule->kept()
    at::Tensor step = {};                  // [] float32: steps taken by this parameter
    at::Tensor master = {};                // of a bfloat16 parameter
  };
  // This optimizer's part of a tensor that has a number for so many elements of the parameter.
  at::Tensor part(const std::string& name, const at::Tensor& whole, int64_t elements_of_number = 1) const;
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
