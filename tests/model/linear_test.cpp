#include "blt/model/linear.h"

#include <ATen/Context.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include <initializer_list>

namespace blt {
namespace {

struct Modules {
  Modules() {
    at::manual_seed(1);
    const at::NoGradGuard no_grad;
    norm->weight.normal_();
  }
  void expect_equal_separate_calls() {
    const at::Tensor x = at::randn({5, 16});
    const auto [first, second] = norm_linears(norm, x, a, b);
    EXPECT_TRUE(at::equal(first, a(norm(x))));
    EXPECT_TRUE(at::equal(second, b(norm(x))));
    EXPECT_EQ(first.requires_grad(), !a->is_frozen());
  }
  RmsNorm norm{16, 1e-5};
  Linear a{16, 8}, b{16, 12};
};

TEST(NormLinears, AreTheNormAndThenEachLinear) { Modules().expect_equal_separate_calls(); }

// Bit for bit, as packed products round otherwise than those of training.
TEST(NormLinears, TakeThePackedPathOnceFrozen) {
  Modules modules;
  for (torch::nn::Module* module :
       std::initializer_list<torch::nn::Module*>{modules.norm.get(), modules.a.get(), modules.b.get()})
    freeze(*module);
  modules.expect_equal_separate_calls();
}

}  // namespace
}  // namespace blt
