// The type that a model computes in.
#pragma once

#include <string_view>
#include <utility>

#include "blt/base/config.h"

namespace blt {

// The type of parameters, activations and the gradients between them. Sums, losses, entropies and the optimizer are float32 either way.
enum class Compute { kFloat32, kBfloat16 };
template <>
struct EnumNames<Compute> {
  static constexpr std::pair<Compute, std::string_view> kValues[] = {{Compute::kFloat32, "float32"},
                                                                     {Compute::kBfloat16, "bfloat16"}};
};

}  // namespace blt
