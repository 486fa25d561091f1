#include "blt/train/dry_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "blt/base/error.h"
#include "blt/data/filled_batch.h"
#include "blt/model/latent_transformer.h"
#include "blt/model/linear.h"
#include "blt/model/ngram_embedding.h"
#include "blt/model/report.h"
#include "blt/model/transformer.h"
#include "blt/train/loss.h"
#include "blt/train/optimizer.h"
#include "train/data_parallel.h"
#include "train/divided_matrices.h"
#include "train/recorded_pass.h"
#include "train/run_cost.h"
#include "train/run_models.h"
#include "train/sharding_cost.h"
#include "train/step_memory.h"
#include "train/table_name.h"
#include "train/update_rule.h"
#include "train/zero3.h"

namespace blt {
namespace {

constexpr double kGib = 1 << 30;

// A batch as the loader makes it, of texts that are all alike: full, with patches at equal distances. patched: for a model that reads them.
Batch full_batch(const DataConfig& data, double mean_patch_bytes, bool patched) {
  if (data.batch_sequences) return fill_batch({}, data.filled_sizes(patched));  // whatever of it is text
  const double patch = std::max(mean_patch_bytes, 1.0);
  const auto sequence_ids = static_cast<double>(data.sequence_bytes + 1);  // BOS
  double ids = static_cast<double>(data.batch_bytes.value_or(DataConfig::kDefaultBatchBytes));
  if (data.batch_patches) {
    const double patches_of_sequence = 1 + static_cast<double>(data.sequence_bytes) / patch;
    const double most = static_cast<double>(*data.batch_patches) / patches_of_sequence * sequence_ids;
    ids = data.batch_bytes ? std::min(ids, most) : most;
  }
  std::vector<PatchedSequence> sequences;
  for (auto left = static_cast<int64_t>(ids); left > 0;) {
    const int64_t length = std::min<int64_t>(left, data.sequence_bytes + 1);
    PatchedSequence& sequence = sequences.emplace_back();
    sequence.ids.assign(static_cast<size_t>(length), kByteOffset);
    sequence.ids[0] = kBos;
    sequence.starts = {0, 1};
    for (int64_t p = 1;; ++p) {
      const int64_t start = 1 + std::llround(static_cast<double>(p) * patch);
      if (start >= length) break;
      sequence.starts.push_back(start);
    }
    left -= length;
  }
  return Batch::pack(sequences);
}

// One model's training.
struct Training {
  torch::nn::Module* module = nullptr;
  std::function<at::Tensor(const Batch&, const PartDone&)> loss = {};
  const TrainConfig* train = nullptr;
  Batch batch = {};
  double flops = 0;  // of a step on each rank, without the entropy model
};

at::Tensor mean_loss(const at::Tensor& logits, const Batch& batch, const PartDone& done) {
  const at::Tensor loss = next_id_loss(logits, batch).sum / batch.num_targets;
  done("logits and loss");
  return loss;
}

Training entropy_model_training(const RunSettings& settings, const EntropyModel& model) {
  Training stage{.module = model.ptr().get(),
                 .loss = [model = model.ptr()](
                             const Batch& batch,
                             const PartDone& done) { return mean_loss(model->forward(batch), batch, done); },
                 .train = &settings.train,
                 .batch = full_batch(settings.data, 1, /*patched=*/false)};
  const CostContext context{.sequence_bytes = static_cast<double>(settings.data.sequence_bytes)};
  stage.flops = flops_per_byte(*model, context);
  return stage;
}

Training blt_training(const RunConfig& config, const Blt& model) {
  const CostContext context = cost_context(config);
  // Where patches grow, the first ones are the shortest, and there are most of them.
  const double patch_bytes = config.data.patch_length ? std::min(config.data.patch_length->mean_patch_bytes,
                                                                 context.mean_patch_bytes)
                                                      : context.mean_patch_bytes;
  Training stage{.module = model.ptr().get(),
                 .loss =
                     [model = model.ptr()](const Batch& batch, const PartDone& done) {
                       const auto [bytes, patches] = model->local_encoder(batch);
                       done("local_encoder");
                       const at::Tensor latents = model->latent_transformer(patches, batch.latent_documents);
                       done("latent_transformer");
                       const at::Tensor h = model->local_decoder(bytes, latents, batch);
                       done("local_decoder");
                       return mean_loss(model->logits(h), batch, done);
                     },
                 .train = &config.train,
                 .batch = full_batch(config.data, patch_bytes, /*patched=*/true)};
  stage.flops = flops_per_byte(*model, context);
  return stage;
}

// Batches of a step, where it has most of them.
int64_t most_accumulated(const TrainConfig& train) {
  int64_t most = train.accumulate_at(0);
  for (const AccumulateFrom& from : train.accumulate_from)
    if (from.step < train.steps) most = std::max(most, from.batches);
  return most;
}

// What a rank's memory holds in a stage.
struct StageCost {
  ShardedSizes sizes;
  ShardingCost sharding;
  StepMemory step;
  double backward = 0;    // at its peak, besides what is held from step to step
  double checkpoint = 0;  // this rank's part of a copy of parameters, optimizer and average
  double average = 0;     // of the weights, this rank's part
  double held() const {
    return sharding.parameters + sharding.tables + sharding.optimizer + sharding.gradients + average;
  }
  bool is_recorded = false;  // in a CUDA graph
  double passing() const {
    const double computing = backward + sharding.beside_backward,
                 moving = std::max(sharding.exchange, sharding.update);
    // A graph keeps all that its pass took, dense gradients among it, which are what moves.
    if (is_recorded) return computing + moving - static_cast<double>(step.gradients);
    return std::max(computing, moving);
  }
  double built = 0;  // the model before the first step: float32, and whole on every rank
  double most() const { return std::max(held() + std::max(passing(), sharding.whole) + checkpoint, built); }
};

// What moving whole matrices takes, of parameters whose optimizer is divided or not.
void add_matrices(const Training& stage, const ParallelConfig& parallel, const Optimizer& optimizer,
                  ShardedSizes& sizes) {
  std::vector<std::shared_ptr<torch::nn::Module>> units;
  if (parallel.sharding == Sharding::kZero3) units = divided_layers(*stage.module);
  const std::vector<Trained> parameters = dense_parameters(*stage.module, units);
  std::vector<std::string> moved;
  for (const auto& [name, parameter, unit] : parameters) {
    if (optimizer.rule_kind(name, parameter) != RuleKind::kMuon) continue;
    moved.push_back(name);
    sizes.matrix_work =
        std::max(sizes.matrix_work, orthogonalizing_elements(parameter.size(0), parameter.size(1)));
  }
  if (parallel.sharding == Sharding::kNone || sizes.world == 1) return;
  const MatrixDivision division =
      division_of(parameters, Buckets(parameters, parallel.bucket_bytes(), sizes.world, /*send=*/{}));
  std::vector<const DividedMatrix*> matrices;
  for (const std::string& name : moved) matrices.push_back(&division.at(name));
  const std::vector<int64_t> parts = travelling(matrices, owners(matrices, sizes.world), sizes.world);
  sizes.matrix_parts = *std::max_element(parts.begin(), parts.end());
}

StageCost cost_of(const Training& stage, const ParallelConfig& parallel, int64_t world, at::Device device) {
  const Sharding sharding = parallel.sharding;
  const bool narrow = stage.train->compute == Compute::kBfloat16;
  if (stage.train->cuda_graph && world > 1) refuse_ranks_with_graphs();
  freeze_groups(*stage.module, stage.train->optimizer.groups);
  recompute_layers(*stage.module, stage.train->recompute);
  Optimizer optimizer(stage.train->optimizer);  // its masters are of no size either
  if (narrow) optimizer.narrow(*stage.module);
  stage.module->train();

  StageCost cost;
  cost.is_recorded = stage.train->cuda_graph;
  ShardedSizes& sizes = cost.sizes;
  for (const at::Tensor& parameter : stage.module->parameters())
    if (parameter.requires_grad()) sizes.dense += parameter.numel();
  for (const auto& child : stage.module->modules()) {
    const auto* embedding = child->as<NgramEmbeddingImpl>();
    if (embedding == nullptr || !embedding->ngram_table.defined() || !embedding->ngram_table.requires_grad())
      continue;
    sizes.tables = embedding->ngram_table.numel();
    sizes.table_rows = embedding->ngram_table.size(0);
    sizes.rows_of_batch =
        std::min(stage.batch.bytes.size(0) * embedding->hash().num_tables(), sizes.table_rows);
  }
  sizes.dense -= sizes.tables;
  sizes.all_rows_move = optimizer.moves_all_rows();
  sizes.parameter_bytes = narrow ? 2 : 4;
  sizes.micro_batches = most_accumulated(*stage.train);
  sizes.world = world;
  sizes.bucket = parallel.bucket_bytes() / 4;
  for (const auto& child : stage.module->modules())
    if (const auto* latent_transformer = child->as<LatentTransformerImpl>())
      for (const auto& layer : latent_transformer->layers->children()) {
        int64_t elements = 0;
        for (const at::Tensor& parameter : layer->parameters())
          if (parameter.requires_grad()) elements += parameter.numel();
        sizes.layers += elements;
        sizes.largest_layer = std::max(sizes.largest_layer, elements);
      }
  for (const auto& item : stage.module->named_parameters())
    if (item.value().requires_grad())
      (is_table_name(item.key()) ? sizes.table_optimizer : sizes.dense_optimizer) += static_cast<double>(
          optimizer.state_bytes(item.key(), item.value()) + (narrow ? 4 * item.value().numel() : 0));
  add_matrices(stage, parallel, optimizer, sizes);
  cost.sharding = sharding_cost(parallel, sizes);
  double average = 0;  // of all
  if (const auto& ema = stage.train->ema)
    average = 4 * static_cast<double>(sizes.dense + (ema->tables ? sizes.tables : 0));
  const double table_average =
      stage.train->ema && stage.train->ema->tables ? 4.0 * static_cast<double>(sizes.tables) : 0;
  const bool divides = sharding != Sharding::kNone,
             divides_tables = divides || parallel.tables == TablePlacement::kSharded;
  cost.average = (average - table_average) / static_cast<double>(divides ? world : 1) +
                 table_average / static_cast<double>(divides_tables ? world : 1);
  cost.checkpoint = (static_cast<double>((sizes.dense + sizes.tables) * sizes.parameter_bytes) +
                     sizes.dense_optimizer + sizes.table_optimizer + average) /
                    static_cast<double>(world);
  int64_t frozen = 0;
  for (const at::Tensor& parameter : stage.module->parameters())
    if (!parameter.requires_grad()) frozen += static_cast<int64_t>(parameter.nbytes());
  cost.sharding.parameters += static_cast<double>(frozen);
  for (const at::Tensor& parameter : stage.module->parameters())
    cost.built += 4 * static_cast<double>(parameter.numel());

  // Where gradients leave in every micro-batch, one is like the other.
  const bool all_leave = world > 1 && (sharding == Sharding::kZero2 || sharding == Sharding::kZero3);
  const int64_t measured = all_leave ? 1 : std::min<int64_t>(sizes.micro_batches, 2);
  cost.step =
      measure_step(*stage.module, stage.loss, stage.batch, measured, /*gradients_leave=*/world > 1, device);
  cost.backward =
      static_cast<double>(cost.step.peak) +
      static_cast<double>((sizes.micro_batches - measured) * sizes.rows_of_batch) * row_bytes(sizes);
  return cost;
}

// A frozen entropy model: its weights, and its matrices once more, packed.
double frozen_bytes(const EntropyModelImpl& model) {
  double bytes = 0;
  for (const auto& child : model.modules()) {
    const double copies = child->as<LinearImpl>() != nullptr ? 2 : 1;
    for (const at::Tensor& parameter : child->parameters(/*recurse=*/false))
      bytes += copies * 4 * static_cast<double>(parameter.numel());
  }
  return bytes;
}

// Of models on one machine and on a thousand.
std::string size_text(double bytes) {
  return bytes < 0.1 * kGib ? fmt::format("{:.3f} MiB", bytes * 1024 / kGib)
                            : fmt::format("{:.3f} GiB", bytes / kGib);
}

class Page {
 public:
  void title(const std::string& text) { text_ += text + "\n"; }
  void size(std::string_view name, double bytes, const std::string& about = {}) {
    text_ += fmt::format("  {:<40} {:>14}{}\n", name, size_text(bytes), about.empty() ? "" : "  " + about);
  }
  std::string text() const { return text_; }

 private:
  std::string text_;
};

std::string millions(int64_t count) { return fmt::format("{:.1f} M", static_cast<double>(count) / 1e6); }

// What the optimizer's state is kept in.
std::string state_types(const TrainConfig& train, bool has_tables) {
  std::string result =
      train.compute == Compute::kBfloat16 ? "moments and masters, float32" : "moments, float32";
  const OptimizerConfig& optimizer = train.optimizer;
  if (has_tables && optimizer.table_moments == TableMoments::kBfloat16)
    result += "; moments of tables bfloat16";
  if (has_tables && optimizer.table_second_moment == SecondMoment::kRow)
    result += "; the second one of tables a number a row";
  return result;
}

void add_memory(Page& page, const StageCost& cost, const TrainConfig& train, double entropy_model) {
  const ShardedSizes& sizes = cost.sizes;
  const char* type = train.compute == Compute::kBfloat16 ? "bfloat16" : "float32";
  page.title("memory of a rank");
  page.size("parameters", cost.sharding.parameters, fmt::format("{} of {}", millions(sizes.dense), type));
  if (sizes.tables > 0)
    page.size("n-gram tables", cost.sharding.tables, fmt::format("{} of {}", millions(sizes.tables), type));
  page.size("optimizer", cost.sharding.optimizer, state_types(train, sizes.tables > 0));
  if (cost.average > 0) page.size("average of the weights", cost.average, "float32");
  if (cost.sharding.gradients > 0) page.size("gradients", cost.sharding.gradients, "float32, in buckets");
  if (entropy_model > 0) page.size("entropy model", entropy_model, "weights, and packed for products");
  page.title(cost.is_recorded
                 ? "  and, since a CUDA graph keeps it, the first and for a while the larger other of"
                 : "  and for a while the largest of");
  page.size("  the backward at its peak", cost.backward,
            fmt::format("activations and gradients; {} of them dense gradients",
                        size_text(static_cast<double>(cost.step.gradients))));
  if (cost.sharding.beside_backward > 0)
    page.size("    and beside it", cost.sharding.beside_backward,
              "buckets on their way, and layers that were gathered");
  if (sizes.tables > 0)
    page.size("  gradients, table rows added up", cost.sharding.exchange,
              "with a row for each look-up: at most");
  page.size("  the update", cost.sharding.update, "gradients, and parameters on their way");
}

void add_kept(Page& page, const StageCost& cost, const Batch& batch) {
  const auto ids = static_cast<double>(batch.bytes.size(0));
  double sum = 0;
  for (const auto& [part, bytes] : cost.step.kept) sum += static_cast<double>(bytes);
  page.title(
      fmt::format("what the forward of a batch of {} bytes in {} patches keeps: {}, {:.0f} B a byte of text",
                  batch.bytes.size(0), batch.patches.count, size_text(sum), sum / ids));
  for (const auto& [part, bytes] : cost.step.kept) page.size(part, static_cast<double>(bytes));
}

}  // namespace

DryRun dry_run(const RunConfig& config, const PlannedMachines& machines) {
  const ModelShapes shapes = model_shapes(config);
  const bool trains_entropy_model =
      config.entropy_model && std::holds_alternative<TrainedEntropyModel>(*config.entropy_model);
  if (shapes.blt.is_empty() && !trains_entropy_model)
    throw Error(
        "--dry-run needs the model's shape in the config: `model`, or an `entropy_model` of kind train");
  const int64_t world = machines.world;
  const at::Device device(config.device);  // which need not be there
  DryRun result;
  Page page;
  page.title(fmt::format("{} rank{}, sharding {}, tables {}", world, world == 1 ? "" : "s",
                         name(config.parallel.sharding), name(config.parallel.tables)));

  // The entropy model comes first, and its training is gone when the other one begins.
  const bool live_entropies = !shapes.blt.is_empty() && !shapes.entropy_model.is_empty();
  const double entropy_model = live_entropies ? frozen_bytes(*shapes.entropy_model) : 0;
  const double entropy_flops =
      live_entropies ? flops_per_byte(*shapes.entropy_model, cost_context(config)) : 0;
  std::optional<RunSettings> settings;
  std::optional<Training> first;
  if (trains_entropy_model) {
    settings = entropy_model_settings(config);
    first = entropy_model_training(*settings, shapes.entropy_model);
  }
  std::optional<StageCost> before;
  if (first && live_entropies) {
    before = cost_of(*first, config.parallel, world, device);
    result.most_bytes = before->most();
  }
  const Training stage = live_entropies || !first ? blt_training(config, shapes.blt) : *first;
  const StageCost cost = cost_of(stage, config.parallel, world, device);
  result.step_bytes = cost.held() + cost.passing() + entropy_model;
  result.most_bytes = std::max(result.most_bytes, cost.most() + entropy_model);

  add_memory(page, cost, *stage.train, entropy_model);
  page.size("a step", result.step_bytes);
  if (cost.sharding.whole > 0)
    page.size("put together in the end", cost.sharding.whole, "when no step is under way");
  page.size("the model as it is built", cost.built, "float32, before anything is divided");
  page.size("copy of this rank's part of a checkpoint", cost.checkpoint, "while it is written");
  if (before) page.size("training the entropy model before", before->most(), "with its checkpoint");
  page.size("the most", result.most_bytes);
  if (machines.memory_gib) {
    result.fits = result.most_bytes <= *machines.memory_gib * kGib;
    page.title(fmt::format("  {} in {:g} GiB", result.fits ? "fits" : "DOES NOT FIT", *machines.memory_gib));
  }
  add_kept(page, cost, stage.batch);

  const auto step_ids = static_cast<double>(stage.batch.bytes.size(0) * cost.sizes.micro_batches);
  const double model_flops = kTrainingOverForward * stage.flops * step_ids;
  page.title(fmt::format("a step: {:.0f} bytes of text a rank, {:.0f} in all", step_ids,
                         step_ids * static_cast<double>(world)));
  page.title(fmt::format("  arithmetic of a rank: {:.4g} TFLOP by the model, {:.4g} by the entropy model",
                         model_flops / 1e12, entropy_flops * step_ids / 1e12));
  for (const ShardingCost::Traffic& traffic : cost.sharding.traffic) {
    page.size(traffic.what, traffic.bytes, "that a rank receives");
    result.traffic_bytes += traffic.bytes;
  }
  std::optional<double> arithmetic_s, transfers_s;
  if (machines.tflops) arithmetic_s = (model_flops + entropy_flops * step_ids) / (*machines.tflops * 1e12);
  if (machines.bandwidth_gbps) transfers_s = result.traffic_bytes * 8 / (*machines.bandwidth_gbps * 1e9);
  if (arithmetic_s)
    page.title(fmt::format("  arithmetic at {:g} TFLOP/s: {:.4g} s", *machines.tflops, *arithmetic_s));
  if (transfers_s)
    page.title(fmt::format("  transfers at {:g} Gbit/s: {:.4g} s", *machines.bandwidth_gbps, *transfers_s));
  if (arithmetic_s && result.traffic_bytes > 0)
    page.title(fmt::format("  transfers take as long as the arithmetic at {:.4g} Gbit/s",
                           result.traffic_bytes * 8 / *arithmetic_s / 1e9));
  if (arithmetic_s && (transfers_s || result.traffic_bytes == 0)) {
    const double both = *arithmetic_s + transfers_s.value_or(0),
                 longest = std::max(*arithmetic_s, transfers_s.value_or(0));
    const double all_bytes = step_ids * static_cast<double>(world);
    page.title(
        fmt::format("  a step: {:.4g} s ({:.4g} MB/s of text) with transfers beside the arithmetic, {:.4g} s "
                    "({:.4g} MB/s) one after the other",
                    longest, all_bytes / longest / 1e6, both, all_bytes / both / 1e6));
  } else {
    page.title("  no step time: that takes --tflops" +
               std::string(world > 1 ? " and --bandwidth-gbps, measured" : ", measured"));
  }
  result.page = page.text() + shapes.note;
  return result;
}

}  // namespace blt
