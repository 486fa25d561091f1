// A config with a field of every kind, for the tests of what reads and writes configs.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "blt/base/config.h"
#include "blt/base/error.h"
#include "temporary_folder.h"

namespace blt_test {

using blt::above;
using blt::at_least;
using blt::between;

enum class Color { kRed, kGreen, kBlue };

struct Layers {
  int64_t dim = 12;
  int64_t heads = 4;
  static void fields(auto& self, auto&& field) {
    field("dim", self.dim, "Width.", at_least(1));
    field("heads", self.heads, "Heads; divides dim.", at_least(1));
  }
  void validate(blt::Errors& errors) const {
    if (dim % heads != 0)
      errors.add("heads", std::to_string(heads) + " does not divide dim = " + std::to_string(dim));
  }
};

struct Source {
  std::filesystem::path path;
  double weight = 1.0;
  static void fields(auto& self, auto&& field) {
    field("path", self.path, "Where the text is.");
    field("weight", self.weight, "Share of the text | in all.", above(0));
  }
  void validate(blt::Errors& errors) const {
    if (path.empty()) errors.add("path", "is missing");
  }
};

struct Cosine {
  static constexpr std::string_view kKind = "cosine";
  int64_t warmup_steps = 100;
  static void fields(auto& self, auto&& field) {
    field("warmup_steps", self.warmup_steps, "Steps of the rise.", at_least(0));
  }
};

struct Constant {
  static constexpr std::string_view kKind = "constant";
  static void fields(auto&, auto&&) {}
};

struct ExampleConfig {
  std::string name = "first try";
  int64_t steps = 1000;
  double rate = 3e-4;
  bool tied = false;
  Color color = Color::kGreen;
  std::optional<int64_t> kv_heads;
  std::optional<double> threshold = 1.5;
  std::vector<int64_t> sizes = {3, 4, 5};
  std::vector<std::string> tags;
  std::filesystem::path out = "runs";
  Layers encoder;
  std::optional<Layers> decoder;
  std::vector<Source> sources;
  std::variant<Cosine, Constant> schedule;

  static void fields(auto& self, auto&& field) {
    field("name", self.name, "Shown in logs.");
    field("steps", self.steps, "Optimizer steps.", at_least(0));
    field("rate", self.rate, "Learning rate per step.", above(0));
    field("tied", self.tied, "Whether tables are shared.");
    field("color", self.color, "Of the bicycle shed.");
    field("kv_heads", self.kv_heads, "Heads of keys.", at_least(1));
    field("threshold", self.threshold, "Nats.");
    field("sizes", self.sizes, "Lengths of n-grams.", between(1, 64));
    field("tags", self.tags, "Words to find the run by.");
    field("out", self.out, "Where checkpoints go.");
    field("encoder", self.encoder, "Bytes to patches.");
    field("decoder", self.decoder, "Patches to bytes.");
    field("sources", self.sources, "What is read.");
    field("schedule", self.schedule, "How the rate changes.");
  }
  void validate(blt::Errors& errors) const {
    if (decoder && decoder->dim != encoder.dim) errors.add("decoder.dim", "differs from encoder.dim");
  }
};

// The message of the blt::Error that `action` throws; a failure and "" when it throws none.
inline std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const blt::Error& e) {
    return e.what();
  }
  ADD_FAILURE() << "no blt::Error was thrown";
  return "";
}

}  // namespace blt_test

template <>
struct blt::EnumNames<blt_test::Color> {
  static constexpr std::pair<blt_test::Color, std::string_view> kValues[] = {
      {blt_test::Color::kRed, "red"}, {blt_test::Color::kGreen, "green"}, {blt_test::Color::kBlue, "blue"}};
};
