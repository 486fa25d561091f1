// What each rank writes of the tensors of a checkpoint: every element is written by one rank, and all of them make the same files as one rank
// alone.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <filesystem>
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
  at::Tensor data = {};             // [elements] on the CPU, contiguous; undefined: none are this rank's
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

// A copy of elements from `begin` on of a flattened tensor that this rank has no more of.
TensorShare part_share(const std::string& file, const std::string& name, std::vector<int64_t> sizes,
                       int64_t begin, const at::Tensor& elements);

// Copies of what a rank's optimizer has of its state and writes: parts where it has parts of the parameters, its equal share of the rest.
// A parameter's scalars are written by the rank that moves its first element.
TensorShares optimizer_shares(const std::string& file, const OptimizerState& state, const Parts& parts,
                              const torch::nn::Module& module, int64_t rank, int64_t ranks);

// The names, types and shapes of shares as text, for the other ranks.
std::string describe(const TensorShares& shares);

// The files that the shares of all ranks make, from what each describes; tensors stand in them as lay_out() has it, among equals by name.
// metadata: by file. Throws blt::Error where ranks describe one tensor differently.
std::map<std::string, SafetensorsLayout> lay_out_files(
    const std::vector<std::string>& descriptions,
    const std::map<std::string, std::map<std::string, std::string>>& metadata);

// Writes a rank's shares into the files in `folder`, and syncs them; several ranks do so at once. with_headers: for one of them. Throws
// blt::Error when the disk does not take it.
WrittenRanges write_shares(const std::filesystem::path& folder,
                           const std::map<std::string, SafetensorsLayout>& files, const TensorShares& shares,
                           int64_t rank, bool with_headers);

}  // namespace blt
