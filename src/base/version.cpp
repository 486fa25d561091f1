#include "blt/base/version.h"

namespace blt {

const char* version() { return BLT_VERSION; }

}  // namespace blt
