// The matrix products of a run, found by listening, and timed again on their own: the bound that they set.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

namespace blt::bench {

// The products (blt::product, ops/linear) that a function made, in order.
class Products {
 public:
  // Calls run() and remembers its products.
  explicit Products(const std::function<void()>& run);

  // Makes them all again, on memory of its own with the shapes and strides of then, one after the other.
  void repeat();

  double flops() const { return flops_; }
  size_t count() const { return order_.size(); }

 private:
  struct Product {
    at::Tensor a, b;
  };
  std::vector<Product> distinct_;
  std::vector<size_t> order_;  // into distinct_
  double flops_ = 0;
};

}  // namespace blt::bench
