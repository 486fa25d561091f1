// Matrices that the ranks have parts of, put together one by one, each on one rank.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/TensorOptions.h>

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "blt/train/group.h"
#include "blt/train/optimizer.h"
#include "train/buckets.h"
#include "train/whole_matrices.h"

namespace blt {

// A matrix [out, in], and what the ranks have of it.
struct DividedMatrix {
  struct Holding {
    int64_t rank = 0;
    Part part = {};
  };
  int64_t out = 0, in = 0;
  at::TensorOptions options = {};      // of its gradient
  std::vector<Holding> holdings = {};  // none of them empty; by rank

  bool is_cut() const { return holdings.size() > 1; }
};
// All matrices, by their parameters' names.
using MatrixDivision = std::map<std::string, DividedMatrix>;

// The matrices among the parameters, as the ranks' ranges of buckets cut them.
MatrixDivision division_of(const std::vector<Trained>& parameters, const Buckets& buckets);

// The rank that each matrix is put together and worked on at: the one that has it, or, of a cut one, of the ranks that have at least half as
// much as who has most, the one with the least work before. Larger matrices are given first. All ranks come to the same.
std::vector<int64_t> owners(const std::vector<const DividedMatrix*>& matrices, int64_t ranks);

// Elements that each rank receives for that, there and back together; it sends as many.
std::vector<int64_t> travelling(const std::vector<const DividedMatrix*>& matrices,
                                const std::vector<int64_t>& owners, int64_t ranks);

// A rank's parts of cut matrices go to their owners and come back; matrices that a rank has whole are worked on meanwhile and go nowhere. So
// the work is divided, and what travels is what is cut.
class DividedMatrices : public WholeMatrices {
 public:
  // group: outlives this.
  DividedMatrices(Group& group, MatrixDivision division) : group_(group), division_(std::move(division)) {}

  // Throws GroupError.
  void apply(const std::vector<MatrixTask>& tasks, const MatrixFunction& function) const override;

 private:
  class Exchange;
  Group& group_;
  MatrixDivision division_;
};

}  // namespace blt
