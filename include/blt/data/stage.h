// What the data chain is made of: stages that produce one thing after the other, and can go on later where
// they were.
#pragma once

#include <optional>

#include "blt/data/state.h"

namespace blt {

// Produces items until there are none. A stage that reads from another owns it, and its state contains the
// other's. Not thread-safe: one consumer.
template <class T>
class Stage {
 public:
  using Item = T;
  virtual ~Stage() = default;

  // nullopt at the end of the data, and from then on. Throws blt::Error, with file and place, when the data
  // is at fault.
  virtual std::optional<T> next() = 0;
  // What reproduces all that follows: a few kilobytes. At any point between two next().
  virtual void save(StateWriter& out) const = 0;
  // On a stage made with the same settings over the same data: the next next() returns what it would have
  // returned there. A state from before the first next() starts over. Throws blt::Error when settings or data
  // are others.
  virtual void load(const StateReader& in) = 0;
};

}  // namespace blt
