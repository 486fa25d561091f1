// What a model costs: parameters, and floating point operations for each byte of text.
#pragma once

#include <torch/nn/module.h>

#include <cstdint>
#include <string>
#include <vector>

#include "blt/model/blt.h"
#include "blt/model/entropy_model.h"

namespace blt {

// Everything here reads shapes alone, so it works on models built under MetaParameters.

struct ParameterReport {
  int64_t total = 0;
  int64_t ngram_tables = 0;     // looked up, not multiplied: they cost memory, no FLOPs
  int64_t byte_embeddings = 0;  // the tables of the 260 ids; an output matrix of its own counts as `rest`
  int64_t rest = 0;

  struct Child {
    std::string name;
    int64_t parameters = 0;    // n-gram tables included
    int64_t ngram_tables = 0;  // of them
  };
  std::vector<Child> children;  // the modules that stand directly in this one, in the order of registration
};
ParameterReport parameter_report(const torch::nn::Module& module);

// What the cost of a byte depends on, besides the model.
struct CostContext {
  double sequence_bytes = 8192;   // length of the sequences: how much there is to attend to
  double mean_patch_bytes = 4.5;  // text bytes over patches
};

// A step trains with the forward and a backward that costs twice as much.
constexpr double kTrainingOverForward = 3.0;

// One row of a model's table: a module, or all the equal ones of a stack of layers together.
struct ModuleCost {
  std::string module;      // "latent_transformer.layers x24 self_attn"
  std::string shape;       // "1280, 10 heads of 128"
  int64_t parameters = 0;  // of all of them
  double flops = 0;        // of all of them, forward, a byte
};

// Forward FLOPs a byte: 2 x in x out for each row of a matrix product, 4 x width for each pair of a query and
// a key that it really sees (causal, within the window), averaged over a sequence of `sequence_bytes`; work
// per patch is divided by the mean patch length, and an encoder cross-attention has k queries a patch.
// Look-ups, norms, pooling and point-wise functions count as 0. The BOS is not counted.
//
// Source: Byte Latent Transformer (arXiv:2412.09871), equations 13 to 17, with the matrices that are there
// (SwiGLU has three, the projections between the widths count) and the keys that are seen.
std::vector<ModuleCost> module_costs(const BltImpl& model, const CostContext& context);
std::vector<ModuleCost> module_costs(const EntropyModelImpl& model, const CostContext& context);

// The sum of the above.
double flops_per_byte(const BltImpl& model, const CostContext& context);
double flops_per_byte(const EntropyModelImpl& model, const CostContext& context);

// "251,936 parameters, 228,936 FLOPs a byte": for a line in a log.
std::string model_summary(const BltImpl& model, const CostContext& context);
std::string model_summary(const EntropyModelImpl& model, const CostContext& context);

// The rows above as aligned text with totals, forward and in training. With an entropy model: its rows, and
// the totals without it (as the paper counts) and with it.
std::string model_table(const BltImpl& model, const EntropyModelImpl* entropy_model,
                        const CostContext& context);
std::string model_table(const EntropyModelImpl& model, const CostContext& context);

}  // namespace blt
