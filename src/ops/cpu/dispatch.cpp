#include "ops/cpu/dispatch.h"

#include <algorithm>
#include <cstdlib>
#include <string_view>

namespace blt::ops {
namespace {

Isa widest() {
#ifdef BLT_X86_ISAS
  // What -march=x86-64-v4 and x86-64-v3 stand for, by the features that not every machine of the level below has.
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512cd"))
    return Isa::kAvx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2"))
    return Isa::kAvx2;
#endif
  return Isa::kBaseline;
}

Isa choose() {
  const char* wish = std::getenv("BLT_ISA");
  if (wish == nullptr) return widest();
  const std::string_view name = wish;
  const Isa limit = name == "baseline" ? Isa::kBaseline : name == "avx2" ? Isa::kAvx2 : Isa::kAvx512;
  return std::min(limit, widest());
}

}  // namespace

Isa isa() {
  static const Isa chosen = choose();
  return chosen;
}

}  // namespace blt::ops
