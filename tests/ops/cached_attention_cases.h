// Cases of cached_attention: the next row of sequences that have some.
#pragma once

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "blt/ops/cached_attention.h"
#include "op_case.h"

namespace blt {

// Caches of sequences whose rows lie end to end in k and v.
inline std::vector<ops::KeyCache> filled_caches(const at::Tensor& k, const at::Tensor& v,
                                                const std::vector<int64_t>& lengths, int64_t window) {
  std::vector<ops::KeyCache> caches;
  int64_t first = 0;
  for (const int64_t length : lengths) {
    caches.emplace_back(k.size(1), k.size(2), window);
    caches.back().append(k.narrow(0, first, length), v.narrow(0, first, length));
    first += length;
  }
  return caches;
}

inline at::Tensor attend_in(std::vector<ops::KeyCache>& caches, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v, double scale) {
  std::vector<ops::KeyCache*> pointers;
  for (ops::KeyCache& cache : caches) pointers.push_back(&cache);
  return ops::cached_attention(q, k, v, pointers, scale);
}

// One query [1, H, E] over all keys [T, Hkv, E].
inline at::Tensor attend_to_all(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double scale) {
  const int64_t group = q.size(1) / k.size(1);
  const at::Tensor keys = k.repeat_interleave(group, 1), values = v.repeat_interleave(group, 1);
  const at::Tensor weights = (at::einsum("qhe,khe->hqk", {q, keys}) * scale).softmax(-1);
  return at::einsum("hqk,khe->qhe", {weights, values});
}

// lengths: rows that each sequence has before. Inputs: the new rows q, k, v, and the keys and values from before.
inline OpCase cached_attention_case(const std::vector<int64_t>& lengths, int64_t H, int64_t Hkv, int64_t E,
                                    int64_t window) {
  const auto N = static_cast<int64_t>(lengths.size());
  int64_t before = 0, seen = 0;
  OpCase c;
  c.name = "H" + std::to_string(H) + " Hkv" + std::to_string(Hkv) + " E" + std::to_string(E) + " window" +
           std::to_string(window) + " N" + std::to_string(N) + " after";
  for (const int64_t length : lengths) {
    before += length;
    seen += window > 0 ? std::min(window, length + 1) : length + 1;
    if (N <= 8) c.name += " " + std::to_string(length);
  }
  if (N > 8) c.name += " " + std::to_string(lengths.front()) + " and so on";
  const double scale = 1.0 / std::sqrt(static_cast<double>(E));
  c.inputs = [=](Rng& rng) -> Tensors {
    return {rng.normal({N, H, E}), rng.normal({N, Hkv, E}), rng.normal({N, Hkv, E}),
            rng.normal({before, Hkv, E}), rng.normal({before, Hkv, E})};
  };
  c.op = [=](const Tensors& in) {
    std::vector<ops::KeyCache> caches = filled_caches(in[3], in[4], lengths, window);
    return attend_in(caches, in[0], in[1], in[2], scale);
  };
  c.reference = [=](const Tensors& in) {
    Tensors rows{at::empty({0, H, E}, in[0].options())};
    int64_t first = 0;
    for (int64_t i = 0; i < N; ++i) {
      const auto all = [&](const at::Tensor& old, const at::Tensor& own) {
        const at::Tensor whole = at::cat({old.narrow(0, first, lengths[i]), own.narrow(0, i, 1)});
        return window > 0 ? whole.slice(0, std::max<int64_t>(0, whole.size(0) - window)) : whole;
      };
      rows.push_back(attend_to_all(in[0].narrow(0, i, 1), all(in[3], in[1]), all(in[4], in[2]), scale));
      first += lengths[i];
    }
    return at::cat(rows);
  };
  c.bytes_moved = 4.0 * static_cast<double>((2 * seen * Hkv + 2 * N * H + 2 * N * Hkv) * E);
  c.flops = 4.0 * static_cast<double>(seen * H * E);
  return c;
}

// A step is timed without the filling of the caches: with copies of them, which share their memory and so stay where they are.
inline OpCase cached_once(const std::vector<int64_t>& lengths, int64_t H, int64_t Hkv, int64_t E,
                          int64_t window) {
  OpCase c = cached_attention_case(lengths, H, Hkv, E, window);
  const double scale = 1.0 / std::sqrt(static_cast<double>(E));
  c.op = [=,
          kept = std::make_shared<std::map<const void*, std::vector<ops::KeyCache>>>()](const Tensors& in) {
    const auto [own, is_new] = kept->try_emplace(in[3].const_data_ptr());
    if (is_new) own->second = filled_caches(in[3], in[4], lengths, window);
    std::vector<ops::KeyCache> caches = own->second;
    return attend_in(caches, in[0], in[1], in[2], scale);
  };
  return c;
}

// A byte in the local layers of the shape `small`, and a patch in its latent ones after 2,047 others; on a GPU, those of the 1B model.
inline std::vector<OpCase> cached_attention_bench_cases() {
  return {cached_once({2047}, 4, 4, 64, 512), cached_once({2047}, 8, 8, 64, 0)};
}

}  // namespace blt
