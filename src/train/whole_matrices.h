// Matrices as a whole, for a rule that moves them so (Muon), where the optimizer may have parts of them.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string_view>
#include <vector>

namespace blt {

// What is to be done about one matrix [out, in].
struct MatrixTask {
  std::string_view name = {};  // of the parameter
  at::IntArrayRef sizes = {};  // of the whole matrix
  // What the optimizer has of the matrix to work on: all of it, or its part, flat. Called once where it has something, and not at all elsewhere.
  std::function<at::Tensor()> part = {};
  // Takes as much of the result: all of it, or the part, flat; to be read before it returns. Called once, after part().
  std::function<void(const at::Tensor&)> take = {};
};

// [out, in] -> [out, in], of the same type.
using MatrixFunction = std::function<at::Tensor(const at::Tensor& matrix)>;

// This one has all matrices whole already.
class WholeMatrices {
 public:
  WholeMatrices() = default;
  virtual ~WholeMatrices() = default;
  WholeMatrices(const WholeMatrices&) = delete;
  WholeMatrices& operator=(const WholeMatrices&) = delete;

  // Applies `function` to each of the matrices. Where ranks have parts, all of them call it with the same matrices in the same order, those that
  // they have nothing of included. Throws c10::Error where only a part of a matrix can be had.
  virtual void apply(const std::vector<MatrixTask>& tasks, const MatrixFunction& function) const;
};

}  // namespace blt
