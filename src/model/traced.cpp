#include "blt/model/traced.h"

namespace blt {

void name_traced(torch::nn::Module& model) {
  for (const auto& item : model.named_modules())
    if (auto* traced = dynamic_cast<Traced*>(item.value().get())) traced->trace_name = item.key();
}

}  // namespace blt
