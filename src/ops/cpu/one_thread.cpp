#include "ops/cpu/one_thread.h"

#include <ATen/Parallel.h>
#ifdef _OPENMP
#include <omp.h>
#endif

namespace blt::ops {

void use_one_thread() {
  at::get_num_threads();  // LibTorch sets its number for a thread when the thread first asks, and no more after that
#ifdef _OPENMP
  omp_set_num_threads(1);  // the calling thread's number, unlike at::set_num_threads
#endif
}

}  // namespace blt::ops
