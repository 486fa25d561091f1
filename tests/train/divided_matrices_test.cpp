// Matrices that ranks have parts of are put together on one of them, whichever way they are cut.
#include "train/divided_matrices.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "train/ranks.h"

namespace blt {
namespace {

using testing::in_group;
using Holdings = std::vector<DividedMatrix::Holding>;

DividedMatrix matrix(int64_t out, int64_t in, Holdings holdings, at::ScalarType type = at::kFloat) {
  return {.out = out, .in = in, .options = at::TensorOptions(type), .holdings = std::move(holdings)};
}

// Every element of the result depends on every element of the matrix and on its place in it.
at::Tensor mixed(const at::Tensor& whole) {
  return whole.mm(whole.t()).mm(whole) + whole.sum() * whole.flip({0, 1});
}

TEST(DividedMatrices, AreWorkedOnAsAWholeHoweverTheyAreCut) {
  at::set_num_threads(1);
  // In the order of a bucket's ranges, but for the last.
  const std::vector<std::pair<std::string, DividedMatrix>> matrices = {
      {"spans all", matrix(4, 5, {{0, {0, 7}}, {1, {7, 17}}, {2, {17, 20}}})},
      {"whole on rank 1", matrix(2, 3, {{1, {0, 6}}})},
      {"tall, on a border", matrix(6, 2, {{1, {0, 5}}, {2, {5, 12}}})},
      {"whole on rank 2", matrix(3, 3, {{2, {0, 9}}})},
      {"float64", matrix(3, 4, {{0, {0, 6}}, {2, {6, 12}}}, at::kDouble)},
      {"one element away", matrix(3, 2, {{0, {0, 1}}, {1, {1, 6}}})},
  };
  torch::manual_seed(1);
  std::map<std::string, at::Tensor> values;
  for (const auto& [name, it] : matrices) values[name] = torch::randn({it.out, it.in}, it.options);
  std::atomic<int> calls = 0, takes = 0;
  in_group(3, [&](const std::shared_ptr<Group>& group) {
    const DividedMatrices divided(*group, {matrices.begin(), matrices.end()});
    // The second time without some, and with nothing that is cut the third time.
    for (const std::vector<size_t>& chosen :
         std::vector<std::vector<size_t>>{{0, 1, 2, 3, 4, 5}, {2, 5}, {1}}) {
      std::vector<MatrixTask> tasks;
      std::vector<std::string> asked;
      for (const size_t i : chosen) {
        const auto& [name, it] = matrices[i];
        const auto own = std::find_if(it.holdings.begin(), it.holdings.end(),
                                      [&](const auto& holding) { return holding.rank == group->rank(); });
        const bool has_some = own != it.holdings.end();
        const Part part = has_some ? own->part : Part{};
        tasks.push_back({.name = name,
                         .sizes = values.at(name).sizes(),
                         .part =
                             [&, has_some, part, name = name] {
                               EXPECT_TRUE(has_some) << name;
                               asked.push_back(name);
                               return values.at(name).view({-1}).slice(0, part.begin, part.end);
                             },
                         .take =
                             [&, part, name = name](const at::Tensor& result) {
                               EXPECT_EQ(std::count(asked.begin(), asked.end(), name), 1) << name;
                               const at::Tensor expected =
                                   mixed(values.at(name)).reshape({-1}).slice(0, part.begin, part.end);
                               EXPECT_TRUE(torch::equal(result, expected)) << name;
                               ++takes;
                             }});
      }
      divided.apply(tasks, [&](const at::Tensor& whole) {
        ++calls;
        return mixed(whole);
      });
      group->barrier("between two uses");
    }
  });
  EXPECT_EQ(calls, 6 + 2 + 1) << "each matrix is worked on by one rank";
  EXPECT_EQ(takes, 3 + 1 + 2 + 1 + 2 + 2 + (2 + 2) + 1);
}

std::vector<const DividedMatrix*> pointers(const std::vector<DividedMatrix>& matrices) {
  std::vector<const DividedMatrix*> result;
  for (const DividedMatrix& it : matrices) result.push_back(&it);
  return result;
}

TEST(DividedMatrices, GoToWhoHasMostOfThem) {
  const std::vector<DividedMatrix> matrices = {
      matrix(4, 4, {{2, {0, 16}}}),
      matrix(4, 4, {{0, {0, 11}}, {1, {11, 16}}}),
      matrix(4, 4, {{0, {0, 4}}, {1, {4, 9}}, {2, {9, 16}}}),
  };
  const std::vector<int64_t> owner_of = owners(pointers(matrices), 3);
  // Rank 1 has no half of what rank 0 has of the second; of the third, all have at least half of the most, and rank 1 has nothing to do yet.
  EXPECT_EQ(owner_of, (std::vector<int64_t>{2, 0, 1}));
  // There and back: 5 of the second, 4 and 7 of the third.
  EXPECT_EQ(travelling(pointers(matrices), owner_of, 3), (std::vector<int64_t>{5 + 4, 5 + 4 + 7, 7}));
}

TEST(DividedMatrices, WorkIsDividedWhereAllHaveAsMuch) {
  // As large ones are, each in a bucket of its own: without balance the first rank would work on all of them.
  std::vector<DividedMatrix> matrices;
  for (int64_t i = 0; i < 8; ++i)
    matrices.push_back(matrix(8, 8, {{0, {0, 16}}, {1, {16, 32}}, {2, {32, 48}}, {3, {48, 64}}}));
  std::vector<int64_t> count(4, 0);
  for (const int64_t owner : owners(pointers(matrices), 4)) ++count[static_cast<size_t>(owner)];
  EXPECT_EQ(count, (std::vector<int64_t>{2, 2, 2, 2}));
}

TEST(DividedMatrices, AreThoseOfTheParametersAsTheirBucketsAreCut) {
  const std::vector<Trained> parameters = {
      {"first", torch::zeros({3, 4})}, {"a vector", torch::zeros({2})}, {"second", torch::zeros({2, 5})}};
  // One bucket, the last parameter first: [second 10, vector 2, first 12] in three ranges of 8.
  const Buckets buckets(parameters, 1 << 20, /*ranks=*/3, /*send=*/{});
  const MatrixDivision division = division_of(parameters, buckets);
  ASSERT_EQ(division.size(), 2u);
  const auto expect = [&](const char* name, const std::vector<std::vector<int64_t>>& expected) {
    std::vector<std::vector<int64_t>> found;
    for (const auto& [rank, part] : division.at(name).holdings) found.push_back({rank, part.begin, part.end});
    EXPECT_EQ(found, expected) << name;
  };
  expect("second", {{0, 0, 8}, {1, 8, 10}});
  expect("first", {{1, 0, 4}, {2, 4, 12}});
}

TEST(DividedMatrices, APartIsRefusedWhereNothingPutsItTogether) {
  const at::Tensor part = torch::zeros({3});
  const std::vector<int64_t> sizes = {2, 3};
  const std::vector<MatrixTask> tasks = {
      {.name = "it", .sizes = sizes, .part = [&] { return part; }, .take = [](const at::Tensor&) {}}};
  EXPECT_THROW(WholeMatrices().apply(tasks, mixed), c10::Error);
}

}  // namespace
}  // namespace blt
