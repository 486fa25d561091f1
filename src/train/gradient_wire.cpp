#include "train/gradient_wire.h"

#include <ATen/ops/empty_like.h>

#include <string>
#include <utility>

namespace blt {
namespace {

// A sum over all ranks begins its way to all of them when so many younger ones are on their way to be added up: by then its parts have
// likely come, and it need not wait for the end of the backward pass. The number is the same on all ranks, and so is the order of transfers.
constexpr size_t kAhead = 2;

}  // namespace

// Everybody's part of a tensor that this rank adds up.
class GradientWire::Exchange {
 public:
  Exchange(Group& group, const at::Tensor& tensor, std::string_view what)
      : group_(group),
        what_(what),
        sent_(tensor.to(at::kBFloat16)),
        received_(at::empty_like(sent_)),
        coming_(group.all_to_all(received_, sent_, what)) {}

  // float32, a rank's share of the tensor.
  at::Tensor added_up() {
    coming_->wait();
    const std::vector<at::Tensor> parts = received_.view({group_.size(), -1}).unbind(0);
    at::Tensor total = parts[0].to(at::kFloat);
    for (size_t r = 1; r < parts.size(); ++r) total.add_(parts[r]);
    return total;
  }

  // Sends what was added up to all.
  void send() {
    const at::Tensor own = added_up().to(at::kBFloat16);
    coming_ = group_.all_gather(sent_, own, what_);
    own_ = own;  // until it has come
  }
  // bfloat16, the whole tensor, after send().
  const at::Tensor& whole() {
    coming_->wait();
    return sent_;
  }

 private:
  Group& group_;
  std::string what_;
  at::Tensor sent_, received_, own_;
  Group::Pending coming_;
};

class GradientWire::Part : public Group::Transfer {
 public:
  Part(std::shared_ptr<Exchange> exchange, at::Tensor output)
      : exchange_(std::move(exchange)), output_(std::move(output)) {}
  void wait() override { output_.copy_(exchange_->added_up()); }

 private:
  std::shared_ptr<Exchange> exchange_;
  at::Tensor output_;
};

class GradientWire::Sum : public Group::Transfer {
 public:
  Sum(GradientWire& wire, std::shared_ptr<Exchange> exchange, at::Tensor tensor)
      : wire_(wire), exchange_(std::move(exchange)), tensor_(std::move(tensor)) {}
  void wait() override {
    wire_.advance(0);
    tensor_.copy_(exchange_->whole());
  }

 private:
  GradientWire& wire_;
  std::shared_ptr<Exchange> exchange_;
  at::Tensor tensor_;
};

void GradientWire::advance(size_t left) {
  for (; exchanges_.size() > left; exchanges_.pop_front()) exchanges_.front()->send();
}

Group::Pending GradientWire::sum(const at::Tensor& tensor, std::string_view what) {
  if (type_ == WireType::kFloat32) return group_.sum(tensor, what);
  exchanges_.push_back(std::make_shared<Exchange>(group_, tensor, what));
  Group::Pending pending = std::make_unique<Sum>(*this, exchanges_.back(), tensor);
  advance(kAhead);
  return pending;
}

Group::Pending GradientWire::reduce_scatter(const at::Tensor& output, const at::Tensor& input,
                                            std::string_view what) {
  if (type_ == WireType::kFloat32) return group_.reduce_scatter(output, input, what);
  return std::make_unique<Part>(std::make_shared<Exchange>(group_, input, what), output);
}

}  // namespace blt
