// For threads that are one of many.
#pragma once

namespace blt::ops {

// From now on, operators that the calling thread runs use this thread alone, LibTorch's too. Other threads are as before.
void use_one_thread();

}  // namespace blt::ops
