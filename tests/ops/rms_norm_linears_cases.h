// Cases of rms_norm_linears.
#pragma once

#include <string>
#include <vector>

#include "blt/ops/rms_norm_linears.h"
#include "ops/linear_cases.h"

namespace blt {

inline OpCase rms_norm_linears_case(int64_t N, int64_t C, const std::vector<int64_t>& outs,
                                    double eps = 1e-5) {
  OpCase c;
  c.name = "N" + std::to_string(N) + "_C" + std::to_string(C) + "_out";
  for (const int64_t out : outs) c.name += "_" + std::to_string(out);
  c.inputs = [=](Rng& rng) {
    Tensors in = {rng.normal({N, C}) * 3, rng.normal({C}) + 1};
    for (const int64_t out : outs) in.push_back(rng.normal({out, C}));
    return in;
  };
  c.op = [=](const Tensors& in) {
    return ops::rms_norm_linears(in[0], in[1], eps, at::TensorList(in).slice(2));
  };
  c.reference = [=](const Tensors& in) {
    const at::Tensor normed = in[1] * in[0] * (in[0].square().mean(-1, true) + eps).rsqrt();
    Tensors results;
    for (size_t i = 2; i < in.size(); ++i) results.push_back(plain_linear(normed, in[i]));
    return results;
  };
  c.own_sums = false;
  for (size_t i = 0; i < 2 + outs.size(); ++i) c.differentiable.push_back(i);
  int64_t out = 0;
  for (const int64_t width : outs) out += width;
  set_linear_bound(c, N, C, out);
  return c;
}

// A branch of a residual stream: the products and the stream.
inline OpCase stream_norm_linears_case(int64_t N, int64_t C, const std::vector<int64_t>& outs, bool adds,
                                       double eps = 1e-5) {
  OpCase c = rms_norm_linears_case(N, C, outs, eps);
  c.name = std::string(adds ? "added_" : "stream_") + c.name;
  const size_t others = adds ? 2 : 1;  // x, and what is added
  c.inputs = [=, plain = c.inputs](Rng& rng) {
    Tensors in = plain(rng);
    if (!adds) return in;
    // Sums that 16 bits hold: what a rounded sum does to products is not what is tested.
    in.insert(in.begin() + 1, (rng.normal({N, C}) * 8).round() / 8);
    in[0] = (in[0] * 8).round() / 8;
    return in;
  };
  c.op = [=](const Tensors& in) {
    auto [stream, results] = ops::stream_norm_linears(in[0], adds ? in[1] : at::Tensor(), in[others], eps,
                                                      at::TensorList(in).slice(others + 1));
    results.push_back(stream);
    return results;
  };
  c.reference = [=, plain = c.reference](const Tensors& in) {
    Tensors plain_in(in.begin() + static_cast<int64_t>(others) - 1, in.end());
    plain_in[0] = adds ? in[0] + in[1] : in[0];
    Tensors results = plain(plain_in);
    results.push_back(plain_in[0] * 1);
    return results;
  };
  if (adds) c.differentiable.push_back(c.differentiable.size());
  return c;
}

// Queries, keys and values, and the two halves of a feed-forward layer, of the shape `small`.
inline std::vector<OpCase> rms_norm_linears_bench_cases() {
  return {rms_norm_linears_case(4096, 256, {256, 256, 256}), rms_norm_linears_case(4096, 256, {768, 768}),
          rms_norm_linears_case(910, 512, {512, 512, 512}), rms_norm_linears_case(910, 512, {1536, 1536})};
}

}  // namespace blt
