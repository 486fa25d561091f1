// How a component describes its settings, once: the list of fields that loading, overriding, help and writing
// all read.
//
//   struct LocalEncoderConfig {
//     int64_t layers = 1;
//     static void fields(auto& self, auto&& field) {
//       field("layers", self.layers, "Transformer layers over the bytes.", at_least(1));
//     }
//     void validate(Errors& errors) const;  // optional: rules that need two fields
//   };
//
// A field is a bool, int64_t, double, std::string, std::filesystem::path (relative to the file that names
// it), an enum with EnumNames, another section, std::optional or std::vector of any of these, or a
// std::variant of sections that have a `static constexpr std::string_view kKind` (the key `kind` in YAML
// chooses). `validate` sees only values within their bounds.
//
// Reading and writing: blt/base/config_io.h. Command lines: blt/base/tool.h.
#pragma once

#include <limits>
#include <string_view>
#include <type_traits>
#include <utility>

#include "blt/base/error.h"

namespace blt {

// Bounds of a number (of every element, for a list).
struct Rule {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  bool low_excluded = false;
};

constexpr Rule at_least(double low) { return {.low = low}; }
constexpr Rule above(double low) { return {.low = low, .low_excluded = true}; }
constexpr Rule between(double low, double high) { return {.low = low, .high = high}; }

// Names of an enum's values, used in YAML, JSON and help. Specialise with
//   static constexpr std::pair<E, std::string_view> kValues[] = {{E::kMax, "max"}, …};
template <class E>
struct EnumNames;

template <class E>
constexpr std::string_view name(E value) {
  for (const auto& [candidate, text] : EnumNames<E>::kValues)
    if (candidate == value) return text;
  return "?";
}

namespace config_detail {
struct IgnoreField {
  void operator()(std::string_view, auto&, std::string_view) const {}
  void operator()(std::string_view, auto&, std::string_view, const Rule&) const {}
};
}  // namespace config_detail

// A struct that lists its fields.
template <class S>
concept Section = std::is_class_v<S> && requires(S& section) {
  S::fields(section, config_detail::IgnoreField{});
};

}  // namespace blt
