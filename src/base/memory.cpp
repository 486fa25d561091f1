#include "blt/base/memory.h"

#include <cstdlib>  // says whether this is glibc

#ifdef __GLIBC__
#include <malloc.h>

#include <limits>
#endif

namespace blt {

void keep_freed_memory() {
#ifdef __GLIBC__
  mallopt(M_MMAP_MAX, 0);  // a mapping of its own would go back to the system when it is freed
  mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
  // The heap grows in steps of this, rather than once for every allocation.
  mallopt(M_TOP_PAD, 64 << 20);
#endif
}

}  // namespace blt
