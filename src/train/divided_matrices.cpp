#include "train/divided_matrices.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <functional>
#include <numeric>
#include <tuple>
#include <utility>

namespace blt {
namespace {

int64_t size_of(const Part& part) { return part.end - part.begin; }

// In proportion to the products of Newton-Schulz steps.
double work_of(const DividedMatrix& matrix) {
  const auto shorter = static_cast<double>(std::min(matrix.out, matrix.in)),
             longer = static_cast<double>(std::max(matrix.out, matrix.in));
  return shorter * shorter * (2 * longer + shorter);
}

// Where in a tensor sorted by rank the elements of each rank begin.
std::vector<int64_t> starts_of(const std::vector<int64_t>& counts) {
  std::vector<int64_t> starts(counts.size());
  std::exclusive_scan(counts.begin(), counts.end(), starts.begin(), int64_t{0});
  return starts;
}

}  // namespace

MatrixDivision division_of(const std::vector<Trained>& parameters, const Buckets& buckets) {
  MatrixDivision result;
  for (size_t i = 0; i < parameters.size(); ++i) {
    const at::Tensor& parameter = parameters[i].parameter;
    if (parameter.dim() != 2) continue;
    DividedMatrix matrix{.out = parameter.size(0),
                         .in = parameter.size(1),
                         .options = buckets.all()[buckets.bucket_of(i)].options};
    for (int64_t rank = 0; rank < buckets.ranks(); ++rank)
      if (const Part part = buckets.part_of(rank, i); size_of(part) > 0)
        matrix.holdings.push_back({rank, part});
    result.emplace(parameters[i].name, std::move(matrix));
  }
  return result;
}

std::vector<int64_t> owners(const std::vector<const DividedMatrix*>& matrices, int64_t ranks) {
  std::vector<int64_t> result(matrices.size());
  std::vector<double> work(static_cast<size_t>(ranks), 0.0);
  const auto give = [&](size_t i, int64_t rank) {
    result[i] = rank;
    work[static_cast<size_t>(rank)] += work_of(*matrices[i]);
  };
  std::vector<size_t> cut;
  for (size_t i = 0; i < matrices.size(); ++i) {
    if (matrices[i]->is_cut())
      cut.push_back(i);
    else
      give(i, matrices[i]->holdings.at(0).rank);
  }
  std::stable_sort(cut.begin(), cut.end(),
                   [&](size_t a, size_t b) { return work_of(*matrices[a]) > work_of(*matrices[b]); });
  for (const size_t i : cut) {
    const std::vector<DividedMatrix::Holding>& holdings = matrices[i]->holdings;
    int64_t most = 0;
    for (const auto& holding : holdings) most = std::max(most, size_of(holding.part));
    // Who has less than half of that would have more to wait for than it saves.
    const auto rank_of_first = [&](const DividedMatrix::Holding& a, const DividedMatrix::Holding& b) {
      const auto key = [&](const DividedMatrix::Holding& holding) {
        const int64_t size = size_of(holding.part);
        return std::make_tuple(2 * size < most, work[static_cast<size_t>(holding.rank)], -size);
      };
      return key(a) < key(b);
    };
    give(i, std::min_element(holdings.begin(), holdings.end(), rank_of_first)->rank);
  }
  return result;
}

std::vector<int64_t> travelling(const std::vector<const DividedMatrix*>& matrices,
                                const std::vector<int64_t>& owners, int64_t ranks) {
  std::vector<int64_t> elements(static_cast<size_t>(ranks), 0);
  for (size_t i = 0; i < matrices.size(); ++i)
    for (const auto& [rank, part] : matrices[i]->holdings)
      if (rank != owners[i]) {
        elements[static_cast<size_t>(owners[i])] += size_of(part);  // there
        elements[static_cast<size_t>(rank)] += size_of(part);       // and back
      }
  return elements;
}

// Cut matrices of one type that travel together.
class DividedMatrices::Exchange {
 public:
  struct Matrix {
    const MatrixTask* task;
    const DividedMatrix* divided;
    int64_t owner;
  };

  explicit Exchange(Group& group) : group_(group) {}

  const at::TensorOptions& options() const { return matrices_[0].divided->options; }
  void add(const Matrix& matrix) { matrices_.push_back(matrix); }

  // Sends this rank's parts to the owners.
  void start() {
    counts_ = {.sent = std::vector<int64_t>(static_cast<size_t>(group_.size()), 0),
               .received = std::vector<int64_t>(static_cast<size_t>(group_.size()), 0)};
    for_each_part([&](const Matrix& matrix, const DividedMatrix::Holding& holding) {
      if (is_away(matrix, holding)) counts_.sent[static_cast<size_t>(matrix.owner)] += size_of(holding.part);
      if (is_guest(matrix, holding))
        counts_.received[static_cast<size_t>(holding.rank)] += size_of(holding.part);
    });
    away_ = at::empty({counts_.total_sent()}, options());
    guests_ = at::empty({counts_.total_received()}, options());
    std::vector<int64_t> next = starts_of(counts_.sent);
    for_each_part([&](const Matrix& matrix, const DividedMatrix::Holding& holding) {
      if (is_away(matrix, holding))
        taken(away_, next[static_cast<size_t>(matrix.owner)], holding.part).copy_(matrix.task->part());
    });
    coming_ = group_.all_to_all(guests_, away_, counts_, "parts of matrices, to be put together");
  }

  // Works on those that are this rank's, and sends back what others have of them.
  void work(const MatrixFunction& function) {
    std::exchange(coming_, {})->wait();
    std::vector<int64_t> next = starts_of(counts_.received);
    for (const Matrix& matrix : matrices_) {
      if (matrix.owner != group_.rank()) continue;
      std::vector<std::pair<Part, at::Tensor>> guests;
      const at::Tensor whole = at::empty({matrix.divided->out * matrix.divided->in}, options());
      Part own;
      for (const DividedMatrix::Holding& holding : matrix.divided->holdings) {
        const at::Tensor place = whole.slice(0, holding.part.begin, holding.part.end);
        if (is_guest(matrix, holding)) {
          guests.emplace_back(holding.part,
                              taken(guests_, next[static_cast<size_t>(holding.rank)], holding.part));
          place.copy_(guests.back().second);
        } else {
          own = holding.part;
          place.copy_(matrix.task->part());
        }
      }
      const at::Tensor result = function(whole.view(matrix.task->sizes)).reshape({-1});
      matrix.task->take(result.slice(0, own.begin, own.end));
      for (const auto& [part, place] : guests) place.copy_(result.slice(0, part.begin, part.end));
    }
    coming_ = group_.all_to_all(away_, guests_, {.sent = counts_.received, .received = counts_.sent},
                                "parts of matrices, back");
  }

  void finish() {
    std::exchange(coming_, {})->wait();
    std::vector<int64_t> next = starts_of(counts_.sent);
    for_each_part([&](const Matrix& matrix, const DividedMatrix::Holding& holding) {
      if (is_away(matrix, holding))
        matrix.task->take(taken(away_, next[static_cast<size_t>(matrix.owner)], holding.part));
    });
  }

 private:
  // This rank's, of another one's matrix; another rank's, of this one's.
  bool is_away(const Matrix& matrix, const DividedMatrix::Holding& holding) const {
    return holding.rank == group_.rank() && matrix.owner != group_.rank();
  }
  bool is_guest(const Matrix& matrix, const DividedMatrix::Holding& holding) const {
    return holding.rank != group_.rank() && matrix.owner == group_.rank();
  }
  void for_each_part(const std::function<void(const Matrix&, const DividedMatrix::Holding&)>& body) const {
    for (const Matrix& matrix : matrices_)
      for (const DividedMatrix::Holding& holding : matrix.divided->holdings) body(matrix, holding);
  }
  // The next elements of a tensor, as many as the part has.
  static at::Tensor taken(const at::Tensor& from, int64_t& next, const Part& part) {
    const int64_t begin = next;
    next += size_of(part);
    return from.slice(0, begin, next);
  }

  Group& group_;
  std::vector<Matrix> matrices_;
  ExchangeCounts counts_;
  at::Tensor away_, guests_;  // sorted by the rank that they go to and come from, then as matrices_
  Group::Pending coming_;
};

void DividedMatrices::apply(const std::vector<MatrixTask>& tasks, const MatrixFunction& function) const {
  std::vector<const DividedMatrix*> matrices;
  for (const MatrixTask& task : tasks) matrices.push_back(&division_.at(std::string(task.name)));
  const std::vector<int64_t> owner_of = owners(matrices, group_.size());
  std::vector<Exchange> exchanges;
  for (size_t i = 0; i < tasks.size(); ++i) {
    if (!matrices[i]->is_cut()) continue;
    const at::TensorOptions& options = matrices[i]->options;
    auto exchange = std::find_if(exchanges.begin(), exchanges.end(), [&](const Exchange& other) {
      return other.options().dtype() == options.dtype() && other.options().device() == options.device();
    });
    Exchange& of_type = exchange != exchanges.end() ? *exchange : exchanges.emplace_back(group_);
    of_type.add({&tasks[i], matrices[i], owner_of[i]});
  }
  for (Exchange& exchange : exchanges) exchange.start();
  for (size_t i = 0; i < tasks.size(); ++i)
    if (!matrices[i]->is_cut() && owner_of[i] == group_.rank())
      tasks[i].take(function(tasks[i].part().view(tasks[i].sizes)).reshape({-1}));
  for (Exchange& exchange : exchanges) exchange.work(function);
  for (Exchange& exchange : exchanges) exchange.finish();
}

}  // namespace blt
