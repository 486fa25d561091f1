#include "blt/base/error.h"
#include "train/nccl.h"

namespace blt {

c10::intrusive_ptr<c10d::Backend> make_nccl(const c10::intrusive_ptr<c10d::Store>&, const RankPlace&,
                                            std::chrono::milliseconds) {
  throw Error(
      "this build of libblt has no transport between GPUs: it was configured without CUDA, or without NCCL's "
      "header (nccl.h, which the wheel nvidia-nccl or the package libnccl-dev has)");
}

}  // namespace blt
