#include "blt/base/error.h"
#include "train/gloo.h"

namespace blt {

c10::intrusive_ptr<c10d::Backend> make_gloo(const c10::intrusive_ptr<c10d::Store>&, const RankPlace&,
                                            std::chrono::milliseconds) {
  throw Error(
      "this build of libblt trains as one process by itself, not as a rank of a launcher: it was configured "
      "without Gloo's headers (apt-get install libgloo-dev, then configure and build again)");
}

}  // namespace blt
