#include "blt/train/group.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cstring>

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
  const int64_t longest = std::max<int64_t>(*std::max_element(lengths.begin(), lengths.end()), 1);
  const at::Tensor own = at::zeros({longest}, at::kByte);
  std::memcpy(own.data_ptr(), text.data(), text.size());
  const at::Tensor all = at::empty({group.size() * longest}, at::kByte);
  group.all_gather(all, own, what)->wait();
  std::vector<std::string> texts;
  for (int64_t r = 0; r < group.size(); ++r)
    texts.emplace_back(static_cast<const char*>(all.data_ptr()) + r * longest,
                       static_cast<size_t>(lengths[static_cast<size_t>(r)]));
  return texts;
}

}  // namespace blt
