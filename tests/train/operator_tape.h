// A stand-in for CUDA graphs on the CPU: the operators of some work are written down and done again with the same memory and the same
// arguments, as a graph does kernels. What the host decides is then what it was, and what it writes itself is not written again.
#pragma once

#include <c10/core/DispatchKey.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/library.h>
#include <torch/torch.h>

#include <functional>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "blt/train/device_graph.h"

namespace blt::testing {

class OperatorTape : public DeviceGraph {
 public:
  // Does the work, and puts back what it changed of memory that it did not make itself.
  explicit OperatorTape(const std::function<void()>& work);
  void replay() override;

  size_t size() const { return calls_.size(); }

 private:
  struct Call {
    c10::OperatorHandle op;
    torch::jit::Stack arguments, results;
  };
  static void note(const c10::OperatorHandle& op, c10::DispatchKeySet keys, torch::jit::Stack* stack);
  friend void note_on_tape(const c10::OperatorHandle& op, c10::DispatchKeySet keys, torch::jit::Stack* stack);

  void keep_before_change(const at::Tensor& tensor);

  std::vector<Call> calls_;
  std::set<const void*> made_;                             // storages
  std::vector<std::pair<at::Tensor, at::Tensor>> before_;  // all of a storage, and what was in it
};

class TapeRecorder : public GraphRecorder {
 public:
  void warm_up(const std::function<void()>& work) override {
    ++warm_ups;
    work();
  }
  std::unique_ptr<DeviceGraph> record(const std::function<void()>& work) override {
    auto tape = std::make_unique<OperatorTape>(work);
    operators += tape->size();
    ++recordings;
    return tape;
  }
  // Of all recorders.
  static inline size_t warm_ups = 0, recordings = 0, operators = 0;
};

}  // namespace blt::testing
