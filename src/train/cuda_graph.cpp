#include <ATen/cuda/CUDAEvent.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <c10/util/Exception.h>
#include <fmt/format.h>

#include "blt/base/error.h"
#include "blt/train/device_graph.h"
#include "train/first_line.h"

namespace blt {
namespace {

class CudaGraph : public DeviceGraph {
 public:
  void replay() override { graph_.replay(); }

  at::cuda::CUDAGraph& graph() { return graph_; }

 private:
  at::cuda::CUDAGraph graph_;
};

// CUDA does not record the default stream, so there is one for recordings, on which the work warms up too: what cuBLAS and the allocator keep
// for a stream is then there.
class CudaGraphRecorder : public GraphRecorder {
 public:
  explicit CudaGraphRecorder(c10::Device device)
      : stream_(c10::cuda::getStreamFromPool(/*isHighPriority=*/false, device.index())),
        pool_(at::cuda::graph_pool_handle()) {}

  void warm_up(const std::function<void()>& work) override { beside(work); }

  std::unique_ptr<DeviceGraph> record(const std::function<void()>& work) override {
    auto result = std::make_unique<CudaGraph>();
    beside([&] {
      // The loader's threads go on allocating and asking for events meanwhile, which other modes refuse.
      result->graph().capture_begin(pool_, cudaStreamCaptureModeThreadLocal);
      try {
        work();
      } catch (const c10::Error& e) {
        end_in_spite_of_it(result->graph());
        throw Error(
            fmt::format("train.cuda_graph: a step cannot be recorded ({}); set it to false", first_line(e)));
      } catch (...) {
        end_in_spite_of_it(result->graph());
        throw;
      }
      result->graph().capture_end();
    });
    return result;
  }

 private:
  // On the stream of recordings, behind the current one, which goes on behind it.
  void beside(const std::function<void()>& work) {
    const c10::cuda::CUDAGuard device(stream_.device());
    const c10::cuda::CUDAStream current = c10::cuda::getCurrentCUDAStream();
    wait(stream_, current);
    {
      const c10::cuda::CUDAStreamGuard guard(stream_);
      work();
    }
    wait(current, stream_);
  }
  static void wait(const c10::cuda::CUDAStream& later, const c10::cuda::CUDAStream& first) {
    at::cuda::CUDAEvent event;
    event.record(first);
    event.block(later);
  }
  // What went wrong first is what to say.
  static void end_in_spite_of_it(at::cuda::CUDAGraph& graph) {
    try {
      graph.capture_end();
    } catch (const c10::Error&) {
    }
  }

  c10::cuda::CUDAStream stream_;
  at::cuda::MempoolId_t pool_;
};

}  // namespace

std::unique_ptr<GraphRecorder> make_graph_recorder(c10::Device device) {
  if (!device.is_cuda())
    throw Error(fmt::format(
        "train.cuda_graph: the model is on {}; set it to false, or train with device: cuda", device.str()));
  return std::make_unique<CudaGraphRecorder>(device);
}

}  // namespace blt
