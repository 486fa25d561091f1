// Shares tasks of uneven cost out among threads.
#pragma once

#include <ATen/Parallel.h>
#include <c10/core/CPUAllocator.h>

#include <atomic>
#include <cstdint>

namespace blt::ops {

// Calls run(task, scratch) once for every task from 0 to `tasks`, from several threads, each of which takes the next task when it is
// done with one: a slow thread delays nobody. `scratch` is `scratch_size` uninitialised elements of T that the thread keeps from task
// to task; it comes from LibTorch's allocator, so it is aligned to 64 bytes, and counted where tensors are. Tasks may not depend on each
// other, so that results do not depend on who runs them.
template <class T, class Run>
void run_tasks(int64_t tasks, int64_t scratch_size, const Run& run) {
  std::atomic<int64_t> next{0};
  const int64_t threads = at::get_num_threads() < tasks ? at::get_num_threads() : tasks;
  at::parallel_for(0, threads, 1, [&](int64_t, int64_t) {
    const c10::DataPtr memory = c10::GetCPUAllocator()->allocate(scratch_size * sizeof(T));
    auto* const scratch = static_cast<T*>(memory.get());
    for (int64_t task = next++; task < tasks; task = next++) run(task, scratch);
  });
}

}  // namespace blt::ops
