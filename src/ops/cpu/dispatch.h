// Picks the instruction set that CPU kernels run on.
//
// A kernel file (cpu_kernel.cpp) holds plain functions of a params struct, in `namespace blt::ops::BLT_ISA`, declared through
// BLT_DECLARE_KERNEL in the op's private header. cmake/cpu_kernels.cmake compiles it once for each instruction set. The tensor side
// (cpu.cpp) calls BLT_KERNEL(name)(arguments...).
#pragma once

namespace blt::ops {

enum class Isa { kBaseline, kAvx2, kAvx512 };

// The widest one that this machine has, asked once. The environment variable BLT_ISA (baseline, avx2, avx512) lowers it.
Isa isa();

}  // namespace blt::ops

#ifdef BLT_X86_ISAS
#define BLT_DECLARE_KERNEL(signature) \
  namespace isa_baseline {            \
  signature;                          \
  }                                   \
  namespace isa_avx2 {                \
  signature;                          \
  }                                   \
  namespace isa_avx512 {              \
  signature;                          \
  }
#define BLT_KERNEL(name)                                                        \
  (::blt::ops::isa() == ::blt::ops::Isa::kAvx512 ? ::blt::ops::isa_avx512::name \
   : ::blt::ops::isa() == ::blt::ops::Isa::kAvx2 ? ::blt::ops::isa_avx2::name   \
                                                 : ::blt::ops::isa_baseline::name)
#else
#define BLT_DECLARE_KERNEL(signature) \
  namespace isa_baseline {            \
  signature;                          \
  }
#define BLT_KERNEL(name) (::blt::ops::isa_baseline::name)
#endif
