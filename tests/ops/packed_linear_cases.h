// Cases of packed_linear.
#pragma once

#include <map>
#include <memory>

#include "blt/ops/packed_linear.h"
#include "ops/linear_cases.h"

namespace blt {

inline OpCase packed_linear_case(int64_t N, int64_t in_features, int64_t out_features) {
  OpCase c = linear_case(N, in_features, out_features);
  c.op = [](const Tensors& in) { return ops::packed_linear(in[0], ops::pack_weight(in[1])); };
  c.differentiable = {};
  c.own_sums = true;
  c.backward_bytes_moved = c.backward_flops = 0;
  return c;
}

// A weight is packed once, and its product taken often.
inline OpCase packed_once(OpCase c) {
  c.op = [kept = std::make_shared<std::map<const void*, ops::PackedWeight>>()](const Tensors& in) {
    const auto [own, is_new] = kept->try_emplace(in[1].const_data_ptr());
    if (is_new) own->second = ops::pack_weight(in[1]);
    return ops::packed_linear(in[0], own->second);
  };
  return c;
}

// The layers of the entropy model of the shape `small`, and of the released one.
inline std::vector<OpCase> packed_linear_bench_cases() {
  return {packed_once(packed_linear_case(4096, 256, 256)), packed_once(packed_linear_case(4096, 256, 768)),
          packed_once(packed_linear_case(4096, 768, 2048)), packed_once(packed_linear_case(1, 768, 2048))};
}

}  // namespace blt
