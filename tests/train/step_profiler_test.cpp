#include "train/step_profiler.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "blt/base/error.h"
#include "file_content.h"
#include "message.h"
#include "model/trace_range.h"
#include "temporary_folder.h"
#include "train/small_model.h"

namespace blt {
namespace {

using blt_test::TemporaryFolder;
using nlohmann::json;
using testing::RepeatBatches;
using testing::sequence;
using testing::small_config;

TrainConfig steps(int64_t count) {
  TrainConfig config;
  config.steps = count;
  config.log_every = 1000;
  return config;
}

// A run whose steps are recorded, with its output in `folder`.
void train(const std::filesystem::path& folder, int64_t count, ProfileConfig profile) {
  torch::manual_seed(3);
  Blt model(small_config());
  TrainerParts parts;
  parts.model = trainable(model);
  parts.train = std::make_unique<RepeatBatches>(
      std::vector<Batch>{Batch::pack({sequence("abcabcabcabcabc"), sequence("xyxyxyxyxy")})});
  parts.output = folder;
  parts.profile = profile;
  Trainer(steps(count), std::move(parts)).run();
}

struct Event {
  double begin = 0, end = 0;
  bool operator<(const Event& other) const { return begin < other.begin; }
};

// The complete events of a trace, by their name.
std::map<std::string, std::vector<Event>> events_of(const std::filesystem::path& trace) {
  std::map<std::string, std::vector<Event>> events;
  const json whole = json::parse(content_of(trace));
  for (const json& event : whole["traceEvents"])
    if (event.value("ph", "") == "X") {
      const double begin = event["ts"].get<double>();
      events[event["name"].get<std::string>()].push_back({begin, begin + event["dur"].get<double>()});
    }
  for (auto& [name, of_name] : events) std::sort(of_name.begin(), of_name.end());
  return events;
}

TEST(StepProfiler, WritesATraceOfTheStepsAfterTheWarmUpWithTheNamesOfModules) {
  const TemporaryFolder folder;
  train(folder.path(), StepProfiler::kWarmUp + 4, {.steps = 2});
  const auto events = events_of(folder.path() / "trace.rank_0.json");
  for (const char* name : {"step 1", "step 3", "step 6", "step 7"}) EXPECT_EQ(events.count(name), 0) << name;
  for (const char* step : {"step 4", "step 5"}) {
    ASSERT_EQ(events.count(step), 1) << step;
    EXPECT_EQ(events.at(step).size(), 1) << step;
  }
  const auto parts = {"data",
                      "forward",
                      "backward",
                      "gradients and update",
                      "logits",
                      "local_encoder",
                      "local_encoder.embedding",
                      "local_encoder.layers.0",
                      "local_encoder.layers.0.self_attn",
                      "latent_transformer",
                      "latent_transformer.layers.0",
                      "latent_transformer.layers.0.mlp",
                      "local_decoder"};
  for (const char* name : parts) {
    ASSERT_EQ(events.count(name), 1) << name;
    ASSERT_EQ(events.at(name).size(), 2) << name;
    for (size_t i = 0; i < 2; ++i) {  // each in its step
      const Event& own = events.at(name)[i];
      const Event& step = events.at(i == 0 ? "step 4" : "step 5")[0];
      EXPECT_TRUE(step.begin <= own.begin && own.end <= step.end) << name;
    }
  }
  const Event& layer = events.at("latent_transformer.layers.0")[0];
  const Event& around = events.at("latent_transformer")[0];
  EXPECT_TRUE(around.begin <= layer.begin && layer.end <= around.end);
  EXPECT_EQ(events.count("local_encoder.cross_attn_layers.0"), 1);
  EXPECT_EQ(events.count("blt::segment_attention"), 1);
  EXPECT_EQ(events.count("aten::_fused_adamw_"), 1);
}

TEST(StepProfiler, ARunThatEndsBeforeWritesWhatItHas) {
  const TemporaryFolder folder;
  train(folder.path(), StepProfiler::kWarmUp + 1, {.steps = 5});
  EXPECT_EQ(events_of(folder.path() / "trace.rank_0.json").count("step 4"), 1);
  const TemporaryFolder other;
  train(other.path(), StepProfiler::kWarmUp, {.steps = 5});  // none is left to record
  EXPECT_FALSE(std::filesystem::exists(other.path() / "trace.rank_0.json"));
}

TEST(StepProfiler, ChangesNoNumber) {
  std::vector<std::string> metrics;
  for (const int64_t recorded : {0, 3}) {
    const TemporaryFolder folder;
    train(folder.path(), StepProfiler::kWarmUp + 3, {.steps = recorded});
    const json last = json::parse(content_of(folder.path() / "metrics.jsonl"));
    metrics.push_back(json{last["loss"], last["gradient_norm"]}.dump());
  }
  EXPECT_EQ(metrics[0], metrics[1]);
}

TEST(StepProfiler, SharesAreOfWhatIsNotSpentInOthers) {
  StepProfiler profiler({.steps = 1}, {}, at::kCPU);
  std::optional<StepProfile> profile;
  for (int64_t step = 0; step <= StepProfiler::kWarmUp; ++step) {
    EXPECT_FALSE(profile);
    profiler.before_step();
    {
      const TraceRange whole("step " + std::to_string(step));
      const TraceRange part("outer");
      const at::Tensor a = torch::ones({256, 256});
      a.matmul(a);
    }
    profile = profiler.after_step(false);
  }
  ASSERT_TRUE(profile);
  EXPECT_EQ(profile->steps, 1);
  ASSERT_EQ(profile->ranges.size(), 1);
  EXPECT_EQ(profile->ranges[0].name, "outer");
  double own = 0;
  std::map<std::string, int64_t> calls;
  for (const RecordedTime& time : profile->operators) {
    own += time.seconds;
    calls[time.name] = time.calls;
  }
  EXPECT_EQ(calls["aten::matmul"], 1);
  EXPECT_EQ(calls["aten::mm"], 1);
  EXPECT_LE(own, profile->ranges[0].seconds * 1.0001);  // mm inside matmul does not count twice
  EXPECT_LE(profile->ranges[0].seconds, profile->seconds);
  EXPECT_NE(to_table(*profile).find("aten::mm"), std::string::npos);
  EXPECT_FALSE(profiler.after_step(true));  // once
}

TEST(StepProfiler, SaysWhereATraceCannotBeWritten) {
  StepProfiler profiler({.steps = 1}, "/nowhere/trace.json", at::kCPU);
  for (int64_t step = 0; step < StepProfiler::kWarmUp; ++step) profiler.after_step(false);
  profiler.before_step();
  EXPECT_MESSAGE(profiler.after_step(true), "/nowhere/trace.json: the trace cannot be written");
}

TEST(StepProfiler, NvtxWantsADevice) {
  if (torch::cuda::is_available()) GTEST_SKIP() << "there is a CUDA device";
  EXPECT_MESSAGE(StepProfiler({.steps = 1, .nvtx = true}, {}, at::kCPU), "no CUDA device is to be seen");
}

}  // namespace
}  // namespace blt
