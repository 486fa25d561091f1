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

  // Makes them all again, on memory of its own with the shapes, strides, types and devices of then, one after the other. On a device that
  // works beside the host they are only begun.
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

// What a large product reaches on a device, of matrices of this type.
double product_flops_per_second(at::Device device, at::ScalarType dtype);

}  // namespace blt::bench
