// The tensors of a batch, one after the other.
#pragma once

#include "blt/batch.h"

namespace blt {

// f(tensor) for each tensor that there may be, in the same order for every batch; those of a batch without patches, or without filler, are
// not all defined.
template <class B, class F>
void for_each_tensor(B& batch, const F& f) {
  f(batch.bytes);
  f(batch.targets);
  for (auto* segments :
       {&batch.documents, &batch.patches, &batch.latent_documents, &batch.readers, &batch.text_documents})
    f(segments->offsets);
}

}  // namespace blt
