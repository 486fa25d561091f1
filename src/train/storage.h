// Memory of tensors that goes and comes back while the tensors stay.
#pragma once

#include <ATen/core/Tensor.h>

namespace blt {

// Gives back the memory of a tensor with a storage of its own; it, and all that share the storage, keep their shapes, and nobody may read
// them. Autograd sees no change.
void empty_storage(const at::Tensor& tensor);
// Memory for it again, with nothing in it yet.
void fill_storage(const at::Tensor& tensor);

}  // namespace blt
