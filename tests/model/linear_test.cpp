#include "blt/model/linear.h"

#include <ATen/Context.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include <initializer_list>
#include <vector>

#include "blt/model/parameters.h"

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
    const at::Tensor added = at::randn({5, 16});
    for (const at::Tensor& more : {added, at::Tensor()}) {
      const auto branch = stream_linears(norm, x, more, a, b);
      EXPECT_TRUE(at::equal(branch.stream, more.defined() ? x + more : x));
      EXPECT_TRUE(at::equal(branch.results[0], a(norm(branch.stream))));
      EXPECT_TRUE(at::equal(branch.results[1], b(norm(branch.stream))));
    }
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

// The meta device has no packed products, as CUDA has none.
TEST(Linear, FrozenWhereThereAreNoPackedProductsTakesThePlainOnes) {
  const MetaParameters shapes_only;
  Modules modules;
  for (torch::nn::Module* module :
       std::initializer_list<torch::nn::Module*>{modules.norm.get(), modules.a.get(), modules.b.get()})
    freeze(*module);
  EXPECT_TRUE(modules.a->is_frozen() && modules.b->is_frozen());
  const at::Tensor x = at::empty({5, 16}, at::kMeta);
  const auto [first, second] = norm_linears(modules.norm, x, modules.a, modules.b);
  EXPECT_EQ(first.sizes(), (std::vector<int64_t>{5, 8}));
  EXPECT_EQ(second.sizes(), (std::vector<int64_t>{5, 12}));
  EXPECT_EQ(modules.a->forward_gated(x, x).sizes(), (std::vector<int64_t>{5, 8}));
  EXPECT_FALSE(first.requires_grad());
}

}  // namespace
}  // namespace blt
