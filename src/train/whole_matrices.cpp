#include "train/whole_matrices.h"

#include <c10/util/Exception.h>

namespace blt {

void WholeMatrices::apply(const std::vector<MatrixTask>& tasks, const MatrixFunction& function) const {
  for (const MatrixTask& task : tasks) {
    const at::Tensor matrix = task.part();
    TORCH_CHECK(matrix.sizes() == task.sizes, "WholeMatrices: ", task.name,
                " is divided, and only a part of ", matrix.numel(),
                " elements is here: let Parallel::step() move it");
    task.take(function(matrix));
  }
}

}  // namespace blt
