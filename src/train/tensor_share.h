// What each rank writes of the tensors of a checkpoint: every element is written by one rank, and all of them make the same files as one rank
// alone.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "blt/train/optimizer.h"
#include "io/safetensors_layout.h"
#include "train/manifest.h"

namespace blt {

// A tensor of a safetensors file, and this rank's elements of it.
struct TensorShare {
  std::string file, name;
  at::ScalarType dtype = at::kFloat;
  std::vector<int64_t> sizes = {};  // of the whole tensor
  int64_t begin = 0;                // of `data` in the flattened tensor
  // [elements] on the CPU, contiguous; undefined: none are this rank's. Of a device's tensor, it is there once the device has come so far
  // (model/device_mark.h).
  at::Tensor data = {};
};
using TensorShares = std::vector<TensorShare>;

// Copies of rank `rank`'s shares of tensors that all ranks have whole: laid end to end, they are cut into as many equal ranges as there are
// ranks. Tensors that `is_constant` are not copied where that is not needed.
struct WholeTensor {
  std::string name;
  at::Tensor tensor;
  bool is_constant = false;
};
TensorShares equal_shares(const std::string& file, const std::vector<WholeTensor>& tensors, int64_t rank,
                          int64_t ranks);

// Copies of what a rank has and writes of tensors that are each about a parameter: parts where it has parts of the parameter, its equal
// share of the rest. Where there are parts, scalars are written by the rank that has the parameter's first element.
struct PartTensor {
  std::string name, parameter;
  at::Tensor tensor;
  bool is_by_row = false;  // one number for each row of the parameter, whose parts are whole rows
};
TensorShares part_shares(const std::string& file, const std::vector<PartTensor>& tensors, const Parts& parts,
                         const torch::nn::Module& module, int64_t rank, int64_t ranks);
// Of a model's tensors: what this rank moves of those that are trained (own: by the parameter's name), its equal share of the others. tensors:
// the parameters of `module` themselves, by their names in the file, and others. Throws c10::Error for a view of a parameter that is divided.
TensorShares model_shares(const std::string& file,
                          const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                          const std::map<std::string, at::Tensor>& own, const Parts& parts,
                          const torch::nn::Module& module, int64_t rank, int64_t ranks);
// Of what a rank's optimizer keeps.
TensorShares optimizer_shares(const std::string& file, const OptimizerState& state, const Parts& parts,
                              const torch::nn::Module& module, int64_t rank, int64_t ranks);

// The names, types and shapes of shares as text, for the other ranks. Each tensor is in that of one rank, who writes its first element.
std::string describe(const TensorShares& shares, int64_t rank);

// The files that the shares of all ranks make, from what each describes; tensors stand in them as lay_out() has it, among equals by name.
// metadata: by file; one that has nothing in it is made all the same.
std::map<std::string, SafetensorsLayout> lay_out_files(
    const std::vector<std::string>& descriptions,
    const std::map<std::string, std::map<std::string, std::string>>& metadata);

// Writes a rank's shares into the files in `folder` and in folders right below it, and syncs them; several ranks do so at once. with_headers: for one of them. Throws
// blt::Error when the disk does not take it, or a share is of another type or shape than `files` has. begins: called before each file.
WrittenRanges write_shares(const std::filesystem::path& folder,
                           const std::map<std::string, SafetensorsLayout>& files, const TensorShares& shares,
                           int64_t rank, bool with_headers,
                           const std::function<void(const std::filesystem::path& file)>& begins);

}  // namespace blt
