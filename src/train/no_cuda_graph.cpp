#include "blt/base/error.h"
#include "blt/train/device_graph.h"

namespace blt {

std::unique_ptr<GraphRecorder> make_graph_recorder(c10::Device) {
  throw Error(
      "train.cuda_graph: this libblt was built without CUDA; set it to false, or build with the preset cuda");
}

}  // namespace blt
