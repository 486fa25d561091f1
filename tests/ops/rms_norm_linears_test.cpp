#include "ops/rms_norm_linears_cases.h"

#include <torch/csrc/autograd/autograd.h>

#include "blt/ops/linear.h"
#include "blt/ops/rms_norm.h"
#include "memory_meter.h"
#include "message.h"
#include "op_tests.h"

BLT_OP_TESTS(RmsNormLinears, rms_norm_linears_case(3, 5, {4}), rms_norm_linears_case(4, 6, {3, 2}),
             rms_norm_linears_case(0, 8, {3, 3}), rms_norm_linears_case(33, 67, {20, 1, 7}),
             stream_norm_linears_case(4, 6, {3, 2}, false),
             stream_norm_linears_case(33, 67, {20, 1, 7}, false),
             stream_norm_linears_case(4, 6, {3, 2}, true), stream_norm_linears_case(33, 67, {20, 1, 7}, true),
             stream_norm_linears_case(0, 8, {3}, true));

namespace blt {
namespace {

constexpr double kEps = 1e-5;

// What rms_norm_linears is made of.
Tensors separate(const at::Tensor& x, const at::Tensor& gain, double eps, at::TensorList weights) {
  const at::Tensor normed = ops::rms_norm(x, gain, eps);
  Tensors results;
  for (const at::Tensor& weight : weights) results.push_back(ops::linear(normed, weight));
  return results;
}

TEST(RmsNormLinears, EqualsSeparateOperatorsBitForBit) {
  Rng rng(1);
  const auto parameter = [&](at::IntArrayRef sizes) {
    return rng.normal(sizes).to(at::kFloat).requires_grad_();
  };
  const at::Tensor x = parameter({50, 40}), gain = parameter({40});
  const Tensors weights = {parameter({30, 40}), parameter({30, 40}), parameter({7, 40})},
                seeds = {rng.normal({50, 30}).to(at::kFloat), rng.normal({50, 30}).to(at::kFloat),
                         rng.normal({50, 7}).to(at::kFloat)};
  Tensors inputs = {x, gain};
  inputs.insert(inputs.end(), weights.begin(), weights.end());
  const Tensors whole = ops::rms_norm_linears(x, gain, kEps, weights),
                parts = separate(x, gain, kEps, weights);
  const Tensors whole_grads = torch::autograd::grad(whole, inputs, seeds),
                parts_grads = torch::autograd::grad(parts, inputs, seeds);
  ASSERT_EQ(whole.size(), 3U);
  for (size_t i = 0; i < parts.size(); ++i) EXPECT_TRUE(at::equal(whole[i], parts[i])) << i;
  for (size_t i = 0; i < inputs.size(); ++i) EXPECT_TRUE(at::equal(whole_grads[i], parts_grads[i])) << i;
}

TEST(RmsNormLinears, ComputesOnlyTheGradientsThatAreAskedFor) {
  Rng rng(2);
  const auto asked = [&](std::vector<bool> wanted) {
    Tensors in = {rng.normal({4, 5}), rng.normal({5}), rng.normal({3, 5}), rng.normal({2, 5})};
    for (size_t i = 0; i < in.size(); ++i) in[i].requires_grad_(wanted[i]);
    const at::TensorList weights = at::TensorList(in).slice(2);
    const auto backward = [&](const Tensors& out) {
      (out[0].sum() + out[1].square().sum()).backward();
      Tensors grads;
      for (at::Tensor& x : in) {
        grads.push_back(x.grad());
        x.mutable_grad() = at::Tensor();
      }
      return grads;
    };
    const Tensors expected = backward(separate(in[0], in[1], kEps, weights)),
                  got = backward(ops::rms_norm_linears(in[0], in[1], kEps, weights));
    for (size_t i = 0; i < in.size(); ++i) {
      ASSERT_EQ(got[i].defined(), wanted[i]) << i;
      if (wanted[i]) {
        EXPECT_TRUE(at::allclose(got[i], expected[i], 1e-12, 1e-12)) << i;
      }
    }
  };
  asked({true, false, false, false});
  asked({false, true, false, false});
  asked({false, false, true, false});
  asked({false, false, false, true});
  asked({true, true, false, true});
}

TEST(RmsNormLinears, AResultThatNobodyUsesHasNoGradient) {
  Rng rng(3);
  const at::Tensor x = rng.normal({4, 5}).requires_grad_(), gain = rng.normal({5}).requires_grad_(),
                   used = rng.normal({3, 5}).requires_grad_(), unused = rng.normal({2, 5}).requires_grad_();
  for (const size_t place : {size_t{0}, size_t{1}}) {
    const Tensors weights = place == 0 ? Tensors{used, unused} : Tensors{unused, used};
    const auto grad = [&](const Tensors& out) {
      return torch::autograd::grad({out[place].square().sum()}, {x, gain, used, unused}, {}, {}, false, true);
    };
    const Tensors got = grad(ops::rms_norm_linears(x, gain, kEps, weights)),
                  expected = grad(separate(x, gain, kEps, weights));
    EXPECT_FALSE(got[3].defined());
    for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(at::allclose(got[i], expected[i], 1e-12, 1e-12)) << i;
  }
}

// A residual branch, whole and in parts; gradients reach the stream by the branch, by what it is added to, or by one of them.
TEST(StreamNormLinears, EqualsSeparateOperatorsBitForBit) {
  Rng rng(4);
  const auto parameter = [&](at::IntArrayRef sizes) {
    return rng.normal(sizes).to(at::kFloat).requires_grad_();
  };
  const at::Tensor x = parameter({50, 40}), added = parameter({50, 40}), gain = parameter({40});
  const Tensors weights = {parameter({40, 40}), parameter({40, 40})};
  for (const bool adds : {false, true})
    for (const int used : {1, 2, 3}) {  // the branch, the stream, both
      const auto grads = [&](const at::Tensor& stream, const Tensors& branch) {
        at::Tensor result = at::zeros({50, 40});
        if (used & 1) result = result + branch[0] * branch[1];
        if (used & 2) result = result + stream;
        return torch::autograd::grad({result.square().sum()}, {x, added, gain, weights[0], weights[1]}, {},
                                     {}, false, true);
      };
      const auto whole = ops::stream_norm_linears(x, adds ? added : at::Tensor(), gain, kEps, weights);
      const at::Tensor sum = adds ? x + added : x;
      const Tensors parts = separate(sum, gain, kEps, weights);
      EXPECT_TRUE(at::equal(whole.stream, sum));
      for (size_t i = 0; i < 2; ++i) EXPECT_TRUE(at::equal(whole.results[i], parts[i])) << i;
      const Tensors got = grads(whole.stream, whole.results), expected = grads(sum, parts);
      for (size_t i = 0; i < got.size(); ++i) {
        ASSERT_EQ(got[i].defined(), expected[i].defined()) << i << " " << adds << " " << used;
        if (got[i].defined()) {
          EXPECT_TRUE(at::equal(got[i], expected[i])) << i << " " << adds << " " << used;
        }
      }
    }
}

TEST(RmsNormLinears, KeepsNoNormalisedRowsForTheBackward) {
  const at::Tensor x = at::ones({256, 512}).requires_grad_(), gain = at::ones({512}).requires_grad_(),
                   weight = at::ones({8, 512}).requires_grad_();
  Tensors whole, parts;
  const auto held = [](const auto& f) {
    MemoryMeter meter;
    // What is still there when f is done: a second call starts from it.
    return meter.peak([&] {
      f();
      const at::Tensor large = at::empty({1 << 20});
    });
  };
  const int64_t one = held([&] { whole = ops::rms_norm_linears(x, gain, kEps, {weight, weight}); });
  const int64_t two = held([&] { parts = separate(x, gain, kEps, {weight, weight}); });
  // Nor the norm of each row.
  EXPECT_EQ(two - one, static_cast<int64_t>((256 * 512 + 256) * sizeof(float)));
}

TEST(RmsNormLinears, RefusesWhatDoesNotFit) {
  const at::Tensor x = at::ones({2, 3}), gain = at::ones({3}), weight = at::ones({4, 3});
  EXPECT_MESSAGE(ops::rms_norm_linears(x, gain, kEps, {}), "needs a weight");
  EXPECT_MESSAGE(ops::rms_norm_linears(x, at::ones({4}), kEps, {weight}), "rms_norm: weight must be [3]");
  EXPECT_MESSAGE(ops::rms_norm_linears(x, gain, kEps, {weight, at::ones({1, 4})}),
                 "linear: weight must be [out, 3]");
}

}  // namespace
}  // namespace blt
