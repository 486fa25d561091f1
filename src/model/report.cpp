#include "blt/model/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

namespace blt {
namespace {

// Mean number of keys that a query of a causal window sees, in sequences of `length` rows.
double mean_keys(double length, int64_t window) {
  const double longest = window > 0 ? std::min<double>(static_cast<double>(window), length) : length;
  return (longest * (longest + 1) / 2 + (length - longest) * longest) / length;
}

// How often something happens for each byte.
struct Rates {
  double queries = 1;  // rows that ask
  double keys = 1;     // rows that are asked
  double pairs = 1;    // pairs of both that see each other
};

class CostList {
 public:
  void embedding(const std::string& name, const NgramEmbeddingImpl& embedding) {
    add(name + ".byte_table",
        fmt::format("{} x {}", embedding.byte_table.size(0), embedding.byte_table.size(1)),
        embedding.byte_table.numel(), 0);
    if (!embedding.ngram_table.defined()) return;
    add(name + ".ngram_table",
        fmt::format("{} x {} x {}", embedding.hash().num_tables(), embedding.hash().rows,
                    embedding.ngram_table.size(1)),
        embedding.ngram_table.numel(), 0);
  }

  void linear(const std::string& name, const Linear& linear, double rows) {
    if (linear.is_empty()) return;
    add(name, fmt::format("{} -> {}", linear->weight.size(1), linear->weight.size(0)), linear->weight.numel(),
        flops(linear, rows));
  }

  void norm(const std::string& name, const RmsNorm& norm) {
    add(name, fmt::format("{}", norm->weight.numel()), norm->weight.numel(), 0);
  }

  // rows: of this stack for each byte; length: rows of a sequence.
  void layers(const std::string& name, const LayersImpl& layers, const TransformerConfig& config,
              int64_t window, double rows, double length) {
    const auto count = static_cast<int64_t>(layers.size());
    const auto& layer = layers.at<TransformerLayerImpl>(0);  // all have the same shapes
    const std::string stack = fmt::format("{} x{}", name, count);
    const SelfAttention& attention = layer.self_attn;
    add(stack + " self_attn",
        heads(attention->q_proj, config) + (window > 0 ? fmt::format(", window {}", window) : ", causal"),
        count * matrices(attention->q_proj, attention->k_proj, attention->v_proj, attention->o_proj),
        static_cast<double>(count) *
            (attention_flops(*attention, {rows, rows, rows * mean_keys(length, window)})));
    int64_t gains = layer.input_layernorm->weight.numel();
    if (!layer.mlp.is_empty()) {
      const FeedForward& mlp = layer.mlp;
      add(stack + " mlp",
          fmt::format("{} -> {} -> {}", mlp->up_proj->weight.size(1), mlp->up_proj->weight.size(0),
                      mlp->down_proj->weight.size(0)),
          count * matrices(mlp->gate_proj, mlp->up_proj, mlp->down_proj),
          static_cast<double>(count) *
              (flops(mlp->gate_proj, rows) + flops(mlp->up_proj, rows) + flops(mlp->down_proj, rows)));
      gains += layer.post_attention_layernorm->weight.numel();
    }
    add(stack + " norms", "", count * gains, 0);
  }

  void cross_attention(const std::string& name, const torch::nn::ModuleListImpl& layers,
                       const TransformerConfig& config, const Rates& rates) {
    const auto count = static_cast<int64_t>(layers.size());
    const auto& layer = layers.at<CrossAttentionImpl>(0);
    add(fmt::format("{} x{}", name, count), heads(layer.q_proj, config),
        count * (matrices(layer.q_proj, layer.k_proj, layer.v_proj, layer.o_proj) +
                 layer.q_norm->weight.numel() + layer.k_norm->weight.numel()),
        static_cast<double>(count) * attention_flops(layer, rates));
  }

  void add(std::string module, std::string shape, int64_t parameters, double flops_a_byte) {
    rows_.push_back({std::move(module), std::move(shape), parameters, flops_a_byte});
  }

  std::vector<ModuleCost> take() { return std::move(rows_); }

  static double flops(const Linear& linear, double rows) {
    return 2.0 * static_cast<double>(linear->weight.numel()) * rows;
  }

 private:
  template <class... Linears>
  static int64_t matrices(const Linears&... linears) {
    return (linears->weight.numel() + ...);
  }

  // Self-attention and cross-attention have the same four matrices.
  template <class Attention>
  static double attention_flops(const Attention& attention, const Rates& rates) {
    const auto width = static_cast<double>(attention.q_proj->weight.size(0));
    return flops(attention.q_proj, rates.queries) + flops(attention.k_proj, rates.keys) +
           flops(attention.v_proj, rates.keys) + flops(attention.o_proj, rates.queries) +
           4.0 * width * rates.pairs;
  }

  static std::string heads(const Linear& q_proj, const TransformerConfig& config) {
    const int64_t width = q_proj->weight.size(0);
    std::string text = fmt::format("{}, {} heads of {}", width, config.heads, width / config.heads);
    if (config.num_kv_heads() != config.heads) text += fmt::format(", {} for keys", config.num_kv_heads());
    return text;
  }

  std::vector<ModuleCost> rows_;
};

double total_flops(const std::vector<ModuleCost>& costs) {
  double sum = 0;
  for (const ModuleCost& cost : costs) sum += cost.flops;
  return sum;
}

int64_t total_parameters(const std::vector<ModuleCost>& costs) {
  int64_t sum = 0;
  for (const ModuleCost& cost : costs) sum += cost.parameters;
  return sum;
}

// 1234567 -> "1,234,567"
std::string grouped(int64_t number) {
  std::string digits = std::to_string(number);
  for (auto i = static_cast<int64_t>(digits.size()) - 3; i > 0; i -= 3) digits.insert(i, ",");
  return digits;
}

std::string summary(const std::vector<ModuleCost>& costs) {
  return fmt::format("{} parameters, {} FLOPs a byte", grouped(total_parameters(costs)),
                     grouped(std::llround(total_flops(costs))));
}

class Table {
 public:
  Table() { line("module", "shape", "parameters", "FLOPs/byte"); }

  void rows(const std::vector<ModuleCost>& costs, const std::string& prefix = "") {
    for (const ModuleCost& cost : costs)
      line(prefix + cost.module, cost.shape, grouped(cost.parameters), grouped(std::llround(cost.flops)));
  }

  void total(const std::string& name, int64_t parameters, double flops) {
    line(name, "", grouped(parameters), grouped(std::llround(flops)));
    line(name + ", in training", "", "", grouped(std::llround(flops * kTrainingOverForward)));
  }

  std::string text(const CostContext& context) const {
    size_t width[4] = {};
    for (const Line& line : lines_)
      for (size_t i = 0; i < 4; ++i) width[i] = std::max(width[i], line.cells[i].size());
    std::string text;
    for (const Line& line : lines_)
      text += fmt::format("{:<{}}  {:<{}}  {:>{}}  {:>{}}\n", line.cells[0], width[0], line.cells[1],
                          width[1], line.cells[2], width[2], line.cells[3], width[3]);
    return text + fmt::format("FLOPs of the forward in sequences of {:g} bytes and patches of {:g} bytes\n",
                              context.sequence_bytes, context.mean_patch_bytes);
  }

 private:
  struct Line {
    std::string cells[4];
  };
  void line(std::string a, std::string b, std::string c, std::string d) {
    lines_.push_back({{std::move(a), std::move(b), std::move(c), std::move(d)}});
  }
  std::vector<Line> lines_;
};

void count(const torch::nn::Module& module, ParameterReport& report) {
  for (const at::Tensor& parameter : module.parameters(/*recurse=*/false)) report.total += parameter.numel();
  if (const auto* embedding = module.as<NgramEmbeddingImpl>()) {
    report.byte_embeddings += embedding->byte_table.numel();
    if (embedding->ngram_table.defined()) report.ngram_tables += embedding->ngram_table.numel();
  }
  for (const auto& child : module.children()) count(*child, report);
}

}  // namespace

ParameterReport parameter_report(const torch::nn::Module& module) {
  ParameterReport report;
  count(module, report);
  report.rest = report.total - report.ngram_tables - report.byte_embeddings;
  for (const auto& child : module.named_children()) {
    ParameterReport below;
    count(*child.value(), below);
    report.children.push_back({child.key(), below.total, below.ngram_tables});
  }
  return report;
}

std::vector<ModuleCost> module_costs(const BltImpl& model, const CostContext& context) {
  const BltConfig& config = model.config();
  const double patches = 1.0 / context.mean_patch_bytes;  // for each byte
  const auto k = static_cast<double>(config.cross_attn_k);
  CostList list;

  const LocalEncoderImpl& encoder = *model.local_encoder;
  list.embedding("local_encoder.embedding", *encoder.embedding);
  list.layers("local_encoder.layers", *encoder.layers, config.local_encoder, config.window, 1,
              context.sequence_bytes);
  const bool repool = config.local_encoder.patch_queries == PatchQueries::kRepool;
  list.linear("local_encoder.patch_embedding_projection", encoder.patch_embedding_projection,
              patches * (repool ? static_cast<double>(encoder.cross_attn_layers->size()) : 1.0));
  // The k queries of a patch see its bytes: k pairs a byte, however long patches are.
  list.cross_attention("local_encoder.cross_attn_layers", *encoder.cross_attn_layers, config.local_encoder,
                       {.queries = k * patches, .keys = 1, .pairs = k});

  const LatentTransformerImpl& latent = *model.latent_transformer;
  list.linear("latent_transformer.token_embedding_projection", latent.token_embedding_projection, patches);
  list.layers("latent_transformer.layers", *latent.layers, config.latent_transformer, /*window=*/0, patches,
              std::max(1.0, context.sequence_bytes * patches));

  const LocalDecoderImpl& decoder = *model.local_decoder;
  list.linear("local_decoder.patch_embedding_projection", decoder.patch_embedding_projection, patches);
  if (!decoder.cross_attn_layers.is_empty())
    list.cross_attention("local_decoder.cross_attn_layers", *decoder.cross_attn_layers, config.local_decoder,
                         {.queries = 1, .keys = k * patches, .pairs = k});
  list.layers("local_decoder.layers", *decoder.layers, config.local_decoder, config.window, 1,
              context.sequence_bytes);
  list.norm("local_decoder.norm", decoder.norm);

  if (model.lm_head.is_empty())
    list.add("lm_head", "tied to byte_table", 0,
             2.0 * static_cast<double>(encoder.embedding->byte_table.numel()));
  else
    list.linear("lm_head", model.lm_head, 1);
  return list.take();
}

std::vector<ModuleCost> module_costs(const EntropyModelImpl& model, const CostContext& context) {
  CostList list;
  list.embedding("embedding", *model.embedding);
  list.layers("layers", *model.layers, model.config(), model.config().window, 1, context.sequence_bytes);
  list.norm("norm", model.norm);
  list.linear("lm_head", model.lm_head, 1);
  return list.take();
}

double flops_per_byte(const BltImpl& model, const CostContext& context) {
  return total_flops(module_costs(model, context));
}

double flops_per_byte(const EntropyModelImpl& model, const CostContext& context) {
  return total_flops(module_costs(model, context));
}

std::string model_summary(const BltImpl& model, const CostContext& context) {
  return summary(module_costs(model, context));
}

std::string model_summary(const EntropyModelImpl& model, const CostContext& context) {
  return summary(module_costs(model, context));
}

std::string model_table(const BltImpl& model, const EntropyModelImpl* entropy_model,
                        const CostContext& context) {
  Table table;
  const std::vector<ModuleCost> costs = module_costs(model, context);
  table.rows(costs);
  table.total("total", total_parameters(costs), total_flops(costs));
  if (entropy_model != nullptr) {
    const std::vector<ModuleCost> more = module_costs(*entropy_model, context);
    table.rows(more, "entropy_model.");
    table.total("total with the entropy model", total_parameters(costs) + total_parameters(more),
                total_flops(costs) + total_flops(more));
  }
  return table.text(context);
}

std::string model_table(const EntropyModelImpl& model, const CostContext& context) {
  Table table;
  const std::vector<ModuleCost> costs = module_costs(model, context);
  table.rows(costs);
  table.total("total", total_parameters(costs), total_flops(costs));
  return table.text(context);
}

}  // namespace blt
