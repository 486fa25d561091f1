// Recorded tensors, and comparing with them: says where they first differ, and by how much.
#pragma once

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <sstream>
#include <string>

#include "blt/io/safetensors.h"

namespace blt {

inline std::map<std::string, at::Tensor> read_tensors(const std::filesystem::path& path) {
  const SafetensorsFile file(path);
  std::map<std::string, at::Tensor> tensors;
  for (const SafetensorsEntry& entry : file.entries()) tensors[entry.name] = file.tensor(entry.name);
  return tensors;
}

// max |actual - expected| <= bound: a success; else a failure with the first index beyond the bound, both values
// there, and the largest error.
inline testing::AssertionResult within(const std::string& name, const at::Tensor& actual,
                                       const at::Tensor& expected, double bound) {
  if (actual.sizes() != expected.sizes()) {
    std::ostringstream text;
    text << name << ": shape " << actual.sizes() << " instead of " << expected.sizes();
    return testing::AssertionFailure() << text.str();
  }
  const at::Tensor a = actual.detach().cpu().to(torch::kDouble).flatten();
  const at::Tensor b = expected.to(torch::kDouble).flatten();
  const at::Tensor error = (a - b).abs();
  const at::Tensor beyond = (error <= bound).logical_not().nonzero();  // NaN is beyond too
  if (beyond.numel() == 0) return testing::AssertionSuccess();
  const auto first = beyond[0].item<int64_t>();
  std::string index;
  int64_t rest = first;
  for (int64_t d = expected.dim() - 1; d >= 0; --d) {
    index = std::to_string(rest % expected.size(d)) + (index.empty() ? "" : ", ") + index;
    rest /= expected.size(d);
  }
  return testing::AssertionFailure() << name << "[" << index << "]: " << a[first].item<double>()
                                     << " instead of " << b[first].item<double>() << "; largest error "
                                     << error.max().item<double>() << ", allowed " << bound << ", "
                                     << beyond.numel() << " of " << b.numel() << " beyond";
}

inline double largest(const at::Tensor& x) { return x.numel() == 0 ? 0.0 : x.abs().max().item<double>(); }

// tolerance x max(1, max |expected|): how near values must be to the references.
inline testing::AssertionResult same_values(const std::string& name, const at::Tensor& actual,
                                            const at::Tensor& expected, double tolerance = 2e-5) {
  return within(name, actual, expected, tolerance * std::max(1.0, largest(expected)));
}

// tolerance x max |expected|: how near gradients must be.
inline testing::AssertionResult same_gradient(const std::string& name, const at::Tensor& actual,
                                              const at::Tensor& expected, double tolerance) {
  return within(name, actual, expected, tolerance * largest(expected));
}

}  // namespace blt
