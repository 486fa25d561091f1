// Which libblt this is.
#pragma once

namespace blt {

// "major.minor.patch"
const char* version();

}  // namespace blt
