#include "blt/train/group.h"

#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cstring>
#include <numeric>

namespace blt {
namespace {

class Done : public Group::Transfer {
 public:
  void wait() override {}
};

class AloneGroup : public Group {
 public:
  AloneGroup() : Group(0, 1) {}
  bool is_alone() const override { return true; }
  Pending sum(const at::Tensor&, std::string_view) override { return std::make_unique<Done>(); }
  Pending broadcast(const at::Tensor&, int64_t, std::string_view) override {
    return std::make_unique<Done>();
  }
  Pending reduce_scatter(const at::Tensor& output, const at::Tensor& input, std::string_view) override {
    return copy(output, input);
  }
  Pending all_gather(const at::Tensor& output, const at::Tensor& input, std::string_view) override {
    return copy(output, input);
  }
  Pending all_to_all(const at::Tensor& output, const at::Tensor& input, std::string_view) override {
    return copy(output, input);
  }
  Pending all_to_all(const at::Tensor& output, const at::Tensor& input, const ExchangeCounts&,
                     std::string_view) override {
    return copy(output, input);
  }
  bool claim_failure(const std::string&) override { return true; }

 private:
  static Pending copy(const at::Tensor& output, const at::Tensor& input) {
    output.copy_(input);
    return std::make_unique<Done>();
  }
};

template <class Number>
std::vector<Number> sum_numbers(Group& group, std::vector<Number> numbers, std::string_view what) {
  const at::Tensor tensor = at::from_blob(numbers.data(), {static_cast<int64_t>(numbers.size())},
                                          c10::CppTypeToScalarType<Number>::value);
  group.sum(tensor, what)->wait();
  return numbers;
}

}  // namespace

void Group::barrier(std::string_view what) { sum(at::zeros({1}), what)->wait(); }

std::shared_ptr<Group> make_alone_group() { return std::make_shared<AloneGroup>(); }

std::vector<double> sum_of(Group& group, std::vector<double> numbers, std::string_view what) {
  return sum_numbers(group, std::move(numbers), what);
}

std::vector<int64_t> sum_of_counts(Group& group, std::vector<int64_t> counts, std::string_view what) {
  return sum_numbers(group, std::move(counts), what);
}

std::vector<int64_t> exchange_numbers(Group& group, std::vector<int64_t> numbers, std::string_view what) {
  std::vector<int64_t> received(numbers.size());
  const auto count = static_cast<int64_t>(numbers.size());
  group
      .all_to_all(at::from_blob(received.data(), {count}, at::kLong),
                  at::from_blob(numbers.data(), {count}, at::kLong), what)
      ->wait();
  return received;
}

std::vector<std::string> gather(Group& group, const std::string& text, std::string_view what) {
  std::vector<int64_t> lengths(static_cast<size_t>(group.size()));
  lengths[static_cast<size_t>(group.rank())] = static_cast<int64_t>(text.size());
  lengths = sum_of_counts(group, std::move(lengths), what);
  const int64_t longest = *std::max_element(lengths.begin(), lengths.end());
  const int64_t total = std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
  // Each in as much room as the longest, or, where that is mostly empty, end to end: a sum with zeros takes two passes.
  const bool end_to_end = 2 * total < longest * group.size();
  std::vector<int64_t> places = {0};
  for (const int64_t length : lengths) places.push_back(places.back() + (end_to_end ? length : longest));
  const auto rank = static_cast<size_t>(group.rank());
  const at::Tensor all = at::zeros({std::max<int64_t>(places.back(), 1)}, at::kByte);
  const at::Tensor own = all.narrow(0, places[rank], places[rank + 1] - places[rank]);
  std::memcpy(own.data_ptr(), text.data(), text.size());
  if (end_to_end)
    group.sum(all, what)->wait();
  else if (longest > 0)
    group.all_gather(all, own.clone(), what)->wait();
  std::vector<std::string> texts;
  for (size_t r = 0; r < lengths.size(); ++r)
    texts.emplace_back(static_cast<const char*>(all.data_ptr()) + places[r], static_cast<size_t>(lengths[r]));
  return texts;
}

}  // namespace blt
