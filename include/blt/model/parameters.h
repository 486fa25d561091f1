// How the modules make and fill their parameters.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string_view>
#include <utility>

#include "blt/base/config.h"

namespace blt {

// What the standard deviation of a block's matrices is divided by (REFERENCE, section 10; Groeneveld et al.,
// OLMo, section 3.2).
enum class InitStdFactor {
  kDisabled,      // 1
  kCurrentDepth,  // sqrt(2 (layer + 1)), layer counted from 0
  kGlobalDepth,   // sqrt(2 (layers + 1))
  kDimRatio,      // dim / 4096
};
template <>
struct EnumNames<InitStdFactor> {
  static constexpr std::pair<InitStdFactor, std::string_view> kValues[] = {
      {InitStdFactor::kDisabled, "disabled"},
      {InitStdFactor::kCurrentDepth, "current_depth"},
      {InitStdFactor::kGlobalDepth, "global_depth"},
      {InitStdFactor::kDimRatio, "dim_ratio"}};
};

// While one lives, modules built on this thread get parameters on the meta device: shapes without memory. For
// counting, and for checking a checkpoint against a config before anything is read. Not copyable; nests.
class MetaParameters {
 public:
  MetaParameters();
  ~MetaParameters();
  MetaParameters(const MetaParameters&) = delete;
  MetaParameters& operator=(const MetaParameters&) = delete;

 private:
  bool before_;
};

// A float32 tensor for a parameter, not filled; on the meta device while a MetaParameters lives.
at::Tensor new_parameter(at::IntArrayRef sizes);

// Fills with a normal distribution of standard deviation `std`, cut at +-3 std, from LibTorch's default
// generator. Does nothing on the meta device.
void truncated_normal_(const at::Tensor& parameter, double std);

}  // namespace blt
