#include "tools/data_commands.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <iostream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <variant>
#include <vector>

#include "blt/base/error.h"
#include "blt/base/files.h"
#include "blt/base/log.h"
#include "blt/base/signals.h"
#include "blt/data/documents.h"
#include "blt/data/loader.h"
#include "blt/io/model_dir.h"
#include "blt/model/linear.h"
#include "blt/patching/patcher.h"
#include "tools/chart_svg.h"
#include "tools/patch_output.h"
#include "tools/patched_text.h"

namespace blt {
namespace {

using Json = nlohmann::ordered_json;

// The config, with the patching and the entropy model that --model brings.
struct Run {
  RunConfig config;
  std::shared_ptr<EntropySource> entropies;  // null where there is no model
  std::shared_ptr<LoaderMetrics> metrics;
};

Run load(const DataOptions& options) {
  Run run{.config = options.load(), .entropies = nullptr, .metrics = nullptr};
  run.metrics = std::make_shared<LoaderMetrics>(run.config.data.sources);
  std::optional<std::filesystem::path> folder = options.model;
  if (!folder && run.config.entropy_model)
    if (const auto* given = std::get_if<GivenEntropyModel>(&*run.config.entropy_model)) folder = given->path;
  if (!folder) return run;
  if (options.model && read_model_kind(*folder) == ModelKind::kBlt)
    run.config.patching = read_model_config(*folder).patching;
  EntropyModel model = load_entropy_model(*folder);
  freeze(*model);
  run.entropies = make_entropies(run.config.data, model, run.config.patching.resets_at_newline())
                      ->counted_in(run.metrics);
  return run;
}

void require_entropies(const Run& run, const char* what) {
  if (!run.entropies)
    throw Error(fmt::format(
        "{} needs an entropy model: name its directory with --model, or as entropy_model.path in the config",
        what));
}

// The threshold that the config names, or the one that training would find.
PatchSchedule patchers(Run& run) {
  if (!run.config.patching.needs_entropies())
    return make_patch_schedule(run.config.data, run.config.patching, nullptr);
  require_entropies(run, "patching by entropy");
  auto* rule = std::get_if<EntropyPatching>(&run.config.patching.rule);
  if (rule != nullptr && !rule->threshold)
    rule->set_threshold(calibrate_on(run.config.data, run.config.patching, *run.entropies).threshold);
  return make_patch_schedule(run.config.data, run.config.patching, run.entropies.get());
}

// Every sequence of the training sources once, in order.
std::unique_ptr<Stage<Sequence>> one_pass(const DataConfig& data) {
  DataConfig once = data;
  once.validation = data.sources;
  return make_sequences(once, Pass::kValidation);
}

struct Lengths {
  int64_t documents = 0, bytes = 0, sequences = 0;
  std::vector<int64_t> of_documents;  // sorted

  double mean() const {
    return documents == 0 ? 0 : static_cast<double>(bytes) / static_cast<double>(documents);
  }
  // The smallest length that at least this share of the documents does not exceed.
  int64_t quantile(double share) const {
    const auto rank = static_cast<size_t>(std::ceil(share * static_cast<double>(documents)));
    return of_documents[std::clamp<size_t>(rank, 1, of_documents.size()) - 1];
  }
};

Lengths measure_documents(const DataConfig& data) {
  Lengths lengths;
  const auto sequences = one_pass(data);
  while (const std::optional<Sequence> sequence = sequences->next()) {
    const auto size = static_cast<int64_t>(sequence->bytes.size());
    if (sequence->starts_document) lengths.of_documents.push_back(0);
    lengths.of_documents.back() += size;
    lengths.bytes += size;
    ++lengths.sequences;
  }
  lengths.documents = static_cast<int64_t>(lengths.of_documents.size());
  std::sort(lengths.of_documents.begin(), lengths.of_documents.end());
  return lengths;
}

constexpr double kQuantiles[] = {0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0};

// How many patches have each length, in the first text of the training order.
std::map<int64_t, int64_t> patch_lengths(Run& run, int64_t sample_bytes) {
  const PatchSchedule schedule = patchers(run);
  PatchStage stage(make_sequences(run.config.data, Pass::kTraining), {{0, schedule.back().patcher}},
                   run.entropies,
                   {.eos = run.config.data.eos, .block_bytes = run.config.data.entropy_batch_bytes});
  std::map<int64_t, int64_t> count;
  for (int64_t bytes = 0; bytes < sample_bytes;) {
    const std::optional<PatchedSequence> sequence = stage.next();  // training never ends
    const auto size = static_cast<int64_t>(sequence->ids.size());
    std::vector<int64_t> starts = sequence->starts;
    if (starts.back() != size) starts.push_back(size);
    for (size_t p = 1; p + 1 < starts.size(); ++p) ++count[starts[p + 1] - starts[p]];  // without the BOS
    bytes += size - 1;
  }
  return count;
}

std::string summary(int64_t bytes, double seconds) {
  return fmt::format("{} in {:.1f} s, {:.2f} MB/s", format_bytes(static_cast<uint64_t>(bytes)), seconds,
                     static_cast<double>(bytes) / seconds / 1e6);
}

}  // namespace

int print_stats(const DataOptions& options) {
  Run run = load(options);
  const Lengths lengths = measure_documents(run.config.data);
  const bool can_patch = !run.config.patching.needs_entropies() || run.entropies;
  const std::map<int64_t, int64_t> patches =
      can_patch ? patch_lengths(run, options.sample_bytes) : std::map<int64_t, int64_t>();
  int64_t count = 0, bytes = 0;
  for (const auto& [length, times] : patches) {
    count += times;
    bytes += length * times;
  }
  const double mean_patch = count == 0 ? 0 : static_cast<double>(bytes) / static_cast<double>(count);
  if (options.svg) {
    if (!can_patch) require_entropies(run, "--svg");
    constexpr int64_t kLastBar = 32;
    const int64_t longest = patches.rbegin()->first;
    Chart chart{
        .title = "Lengths of patches",
        .subtitle = fmt::format(
            "{} patches of {:.3f} bytes on average{}", count, mean_patch,
            longest > kLastBar ? fmt::format("; the last bar is all of {} bytes or more", kLastBar) : ""),
        .x_name = "bytes of a patch",
        .y_name = "share of the patches",
        .points = {},
        .bars = true};
    std::vector<double> shares(std::min(kLastBar, longest), 0.0);
    for (const auto& [length, times] : patches)
      shares[std::min<size_t>(static_cast<size_t>(length), shares.size()) - 1] +=
          static_cast<double>(times) / static_cast<double>(count);
    for (size_t i = 0; i < shares.size(); ++i)
      chart.points.emplace_back(static_cast<double>(i + 1), shares[i]);
    write_file(*options.svg, chart_svg(chart));
  }
  if (options.json) {
    Json result = {{"documents", lengths.documents},
                   {"bytes", lengths.bytes},
                   {"sequences", lengths.sequences},
                   {"mean_bytes", lengths.mean()}};
    for (const double share : kQuantiles)
      result["quantiles"][fmt::format("{:g}", share)] = lengths.quantile(share);
    if (can_patch) {
      result["mean_patch_bytes"] = mean_patch;
      for (const auto& [length, times] : patches) result["patch_lengths"][std::to_string(length)] = times;
    }
    std::cout << result.dump() << std::endl;
    return kDone;
  }
  std::cout << fmt::format("{:<20} {}\n{:<20} {} ({})\n{:<20} {}\n{:<20} {:.1f}\n", "documents",
                           lengths.documents, "bytes", lengths.bytes,
                           format_bytes(static_cast<uint64_t>(lengths.bytes)), "sequences", lengths.sequences,
                           "mean length", lengths.mean());
  for (const double share : kQuantiles)
    std::cout << fmt::format("{:<20} {}\n", fmt::format("{:g}% up to", 100 * share), lengths.quantile(share));
  if (can_patch) std::cout << fmt::format("{:<20} {:.3f}\n", "mean patch length", mean_patch);
  std::cout << std::flush;
  return kDone;
}

int print_calibration(const DataOptions& options) {
  Run run = load(options);
  require_entropies(run, "calibrate");
  auto* rule = std::get_if<EntropyPatching>(&run.config.patching.rule);
  if (rule == nullptr) throw Error("patching.rule has no threshold: calibrate is for entropy rules");
  const double wanted =
      options.mean_patch_bytes.value_or(rule->mean_patch_bytes.value_or(kDefaultMeanPatchBytes));
  rule->threshold.reset();
  const EntropySample sample = entropy_sample(run.config.data, *run.entropies, options.sample_bytes);
  const std::vector<CalibrationSequence> sequences = sample.sequences();
  const Calibration found = calibrate(run.config.patching, sequences, wanted);

  std::vector<std::pair<double, double>> curve;
  if (options.svg || options.json) {
    const double most = std::max(2 * found.threshold, 1.0);
    for (int i = 0; i <= 60; ++i) {
      rule->threshold = most * i / 60;
      const PatchCount count = count_patches(*make_patcher(run.config.patching), sequences);
      if (count.mean_patch_bytes() > 4 * wanted) break;  // the tail of the curve would hide its beginning
      curve.emplace_back(*rule->threshold, count.mean_patch_bytes());
    }
  }
  if (options.svg)
    write_file(*options.svg,
               chart_svg({.title = "Mean patch length over the threshold",
                          .subtitle = fmt::format("on {} bytes of training text", found.count.bytes),
                          .x_name = "threshold, nats",
                          .y_name = "bytes a patch",
                          .points = curve,
                          .bars = false,
                          .marked = std::pair(found.threshold, found.mean_patch_bytes)}));
  if (options.json)
    std::cout << Json{{"threshold", found.threshold},
                      {"mean_patch_bytes", found.mean_patch_bytes},
                      {"bytes", found.count.bytes},
                      {"patches", found.count.patches},
                      {"curve", curve}}
                     .dump()
              << std::endl;
  else
    std::cout << fmt::format("threshold {:.9g} nats: {:.4f} bytes a patch on {} bytes of training text\n",
                             found.threshold, found.mean_patch_bytes, found.count.bytes)
              << std::flush;
  return kDone;
}

int fill_entropy_cache(const DataOptions& options) {
  Run run = load(options);
  require_entropies(run, "entropies");
  const DataConfig& data = run.config.data;
  if (!data.entropy_cache.folder)
    throw Error("data.entropy_cache.folder is missing: say where the entropies go");
  catch_stop_signals();
  const bool terminal = isatty(STDERR_FILENO) != 0;
  const auto start = std::chrono::steady_clock::now();
  const auto seconds = [&] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  double shown = 0;
  int64_t bytes = 0;
  const auto show = [&](const char* end) {
    const int64_t hits = run.metrics->cache_hits, all = hits + run.metrics->cache_misses;
    fmt::print(stderr, "{}{} of text; {} sequences, {} of them were there already{}", terminal ? "\r" : "",
               summary(bytes, seconds()), all, hits, end);
    std::fflush(stderr);
    shown = seconds();
  };
  // The threshold does not matter for what is stored.
  EntropyPatching any;
  any.threshold = 1.0;
  std::vector<std::unique_ptr<Stage<Sequence>>> inputs;
  inputs.push_back(one_pass(data));
  if (!data.validation.empty()) inputs.push_back(make_sequences(data, Pass::kValidation));
  for (std::unique_ptr<Stage<Sequence>>& input : inputs) {
    const int64_t threads = entropy_threads(data);
    PatchStage stage(std::move(input), {{0, make_patcher({any, {}})}}, run.entropies,
                     {.eos = data.eos,
                      .block_bytes = data.entropy_batch_bytes,
                      .threads = threads,
                      .blocks_ahead = 2 * threads + 1});
    while (const std::optional<PatchedSequence> sequence = stage.next()) {
      bytes += static_cast<int64_t>(sequence->ids.size()) - 1;
      if (seconds() - shown > (terminal ? 0.5 : 30)) show(terminal ? "" : "\n");
      if (!stop_requested()) continue;
      show("\n");
      log_info("stopped; the next run goes on from here");
      return kStopped;
    }
  }
  show("\n");
  return kDone;
}

int print_batches(const DataOptions& options) {
  Run run = load(options);
  const bool patched = run.config.model.has_value();
  // The stage whose batches they are.
  const bool of_entropy_model = !patched && run.config.entropy_model &&
                                std::holds_alternative<TrainedEntropyModel>(*run.config.entropy_model);
  const RunSettings settings = of_entropy_model ? entropy_model_settings(run.config) : run.config;
  const LoaderOptions of_rank{.share = {.rank = options.rank, .ranks = options.ranks}};
  const auto loader =
      patched ? make_patch_loader(settings.data, Pass::kTraining, patchers(run), run.entropies, of_rank)
              : make_byte_loader(settings.data, Pass::kTraining, of_rank);
  const int64_t step = options.step - 1;  // the trainer counts from 0
  for (int64_t before = 0; before < step; ++before)
    for (int64_t b = settings.train.accumulate_at(before); b > 0; --b) loader->next();
  const int64_t per_step = settings.train.accumulate_at(step);
  const bool color = terminal_takes_colors();
  for (int64_t b = 0; b < per_step; ++b) {
    const Batch batch = *loader->next();  // training never ends
    const int64_t sequences = batch.documents.count - batch.num_filler_documents;
    std::cout << fmt::format("batch {} of {} of step {}: {} bytes, {} sequences, {} patches", b + 1, per_step,
                             options.step, batch.num_byte_targets, sequences,
                             batch.patches.count - batch.num_filler_patches);
    if (batch.num_filler_documents > 0)
      std::cout << fmt::format("; filler: {} sequences, {} patches", batch.num_filler_documents,
                               batch.num_filler_patches);
    std::cout << "\n";
    const int32_t* ids = batch.bytes.const_data_ptr<int32_t>();
    const int32_t* documents = batch.documents.offsets.const_data_ptr<int32_t>();
    const int32_t* patches = patched ? batch.patches.offsets.const_data_ptr<int32_t>() : nullptr;
    int64_t patch = 0;
    for (int64_t d = 0; d < sequences; ++d) {
      std::cout << fmt::format("\nsequence {}, {} ids\n", d + 1, documents[d + 1] - documents[d]);
      for (int64_t i = documents[d]; i < documents[d + 1];) {
        const int64_t end = patched ? patches[patch + 1] : documents[d + 1];
        TextPatch text;
        bool eos = false;
        for (; i < end; ++i) {
          if (ids[i] >= kByteOffset) text.bytes += static_cast<char>(ids[i] - kByteOffset);
          eos = eos || ids[i] == kEos;
        }
        if (!text.bytes.empty()) std::cout << terminal_text(text, patch % 2 == 0, color && patched);
        if (eos) std::cout << "<EOS>";
        ++patch;
      }
      std::cout << "\n";
    }
  }
  std::cout << std::flush;
  return kDone;
}

}  // namespace blt
