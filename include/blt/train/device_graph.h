// Work of a device that is recorded once and done again as a whole: the host launches it with one call instead of one for each kernel.
#pragma once

#include <c10/core/Device.h>

#include <functional>
#include <memory>

namespace blt {

// What was recorded.
class DeviceGraph {
 public:
  virtual ~DeviceGraph() = default;
  // Hands all of it to the device, behind what the current stream has. It reads and writes the memory that it was recorded with.
  virtual void replay() = 0;
};

// Records work that only hands things to the device: it never waits for it, and what the host decides in it (sizes, numbers that are no
// tensors) stays as it was recorded. One at a time. Not thread-safe.
class GraphRecorder {
 public:
  virtual ~GraphRecorder() = default;
  // Does the work as record() will see it, and waits for nothing: what it sets up when it is done for the first time is not recorded then.
  virtual void warm_up(const std::function<void()>& work) = 0;
  // Only records the work; what it computes is there after replay(). Tensors that it makes belong to the graphs of this recorder, and those
  // that are kept are written by each replay(). Graphs are replayed in the order that they were recorded in. Throws blt::Error where the work
  // cannot be recorded.
  virtual std::unique_ptr<DeviceGraph> record(const std::function<void()>& work) = 0;
};

// CUDA's graphs. Throws blt::Error for another device, or when libblt was built without CUDA. (Not yet run on a GPU.)
std::unique_ptr<GraphRecorder> make_graph_recorder(c10::Device device);

}  // namespace blt
