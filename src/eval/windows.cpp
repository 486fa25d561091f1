#include "eval/windows.h"

#include <utility>

namespace blt {

std::optional<Window> Windows::next() {
  std::optional<Sequence> sequence = sequences_.next();
  if (!sequence) return std::nullopt;
  if (sequence->starts_document) context_.clear();
  Window window;
  window.starts_document = sequence->starts_document;
  window.first = 1 + static_cast<int64_t>(context_.size());
  sequence->bytes.insert(0, context_);
  window.ids = sequence->ids(/*eos=*/false);  // nothing is predicted from it
  context_ = std::move(sequence->bytes);
  if (static_cast<int64_t>(context_.size()) > context_bytes_)
    context_.erase(0, context_.size() - context_bytes_);
  return window;
}

}  // namespace blt
