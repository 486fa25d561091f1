// Which rule cuts bytes into patches (section 2 of the paper; REFERENCE, section 5).
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <variant>

#include "blt/base/config.h"

namespace blt {

// A patch every `patch_bytes` bytes (section 2.1).
struct StaticPatching {
  static constexpr std::string_view kKind = "static";
  int64_t patch_bytes = 4;
  static void fields(auto& self, auto&& field) {
    field("patch_bytes", self.patch_bytes, "Bytes of a patch.", at_least(1));
  }
};

// Every byte is a patch.
struct BytePatching {
  static constexpr std::string_view kKind = "byte";
  static void fields(auto&, auto&&) {}
};

// A patch ends at each space-like byte (section 2.2).
struct SpacePatching {
  static constexpr std::string_view kKind = "space";
  static void fields(auto&, auto&&) {}
};

// A patch starts where the entropy of the next byte is high (section 2.3).
struct EntropyPatching {
  static constexpr std::string_view kKind = "entropy";
  std::optional<double> threshold = {};
  std::optional<double> mean_patch_bytes = {};
  std::optional<double> threshold_add = {};
  bool monotonic = false;
  bool reset_at_newline = false;
  static void fields(auto& self, auto&& field) {
    field("threshold", self.threshold,
          "Nats: the next byte starts a patch when its entropy is above this (monotonic: when the "
          "entropy rises by more than this). Default: calibrated for mean_patch_bytes.");
    field("mean_patch_bytes", self.mean_patch_bytes,
          "Mean patch length that an absent threshold is calibrated for on training "
          "data. Default: 4.5.",
          above(1));
    field("threshold_add", self.threshold_add,
          "Nats: besides being above the threshold, the entropy must rise by more than this.");
    field("monotonic", self.monotonic,
          "Compare the rise of the entropy, not the entropy, with the threshold.");
    field("reset_at_newline", self.reset_at_newline,
          "Restart the entropy model's context after every newline.");
  }
  void validate(Errors& errors) const;

  // The answer takes the place of the question, mean_patch_bytes: a rule has the one or the other.
  void set_threshold(std::optional<double> nats) {
    threshold = nats;
    mean_patch_bytes.reset();
  }
};

// The S / patch_bytes - 2 highest entropies of a whole sequence start patches. Looks ahead: for evaluation
// only.
struct TopKPatching {
  static constexpr std::string_view kKind = "top_k";
  int64_t patch_bytes = 4;
  static void fields(auto& self, auto&& field) {
    field("patch_bytes", self.patch_bytes, "Mean bytes of a patch.", at_least(1));
  }
};

struct PatchingConfig {
  std::variant<EntropyPatching, StaticPatching, BytePatching, SpacePatching, TopKPatching> rule = {};
  std::optional<int64_t> max_patch_length = {};

  static void fields(auto& self, auto&& field) {
    field("rule", self.rule, "What ends a patch.");
    field("max_patch_length", self.max_patch_length,
          "A patch of this many bytes is full: the next byte starts another.", at_least(1));
  }

  // Whether the rule reads entropies, and so needs an entropy model.
  bool needs_entropies() const;
  // Whether the entropy model that the rule reads restarts its context after every newline.
  bool resets_at_newline() const;
};

}  // namespace blt
