// Shares tasks of uneven cost out among threads.
#pragma once

#include <ATen/Parallel.h>

#include <atomic>
#include <cstdint>
#include <memory>

namespace blt::ops {

// Calls run(task, scratch) once for every task from 0 to `tasks`, from several threads, each of which takes the next task when it is
// done with one: a slow thread delays nobody. `scratch` is `scratch_size` uninitialised elements of T, aligned to 64 bytes, that the
// thread keeps from task to task. Tasks may not depend on each other, so that results do not depend on who runs them.
template <class T, class Run>
void run_tasks(int64_t tasks, int64_t scratch_size, const Run& run) {
  std::atomic<int64_t> next{0};
  const int64_t threads = at::get_num_threads() < tasks ? at::get_num_threads() : tasks;
  at::parallel_for(0, threads, 1, [&](int64_t, int64_t) {
    constexpr int64_t kAlignment = 64 / static_cast<int64_t>(sizeof(T));
    const std::unique_ptr<T[]> memory(new T[scratch_size + kAlignment]);
    const auto misaligned = reinterpret_cast<uintptr_t>(memory.get()) / sizeof(T) % kAlignment;
    T* const scratch = memory.get() + (kAlignment - misaligned) % kAlignment;
    for (int64_t task = next++; task < tasks; task = next++) run(task, scratch);
  });
}

}  // namespace blt::ops
