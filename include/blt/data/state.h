// The small state that lets a chain of stages go on where it was: a tree of sections with integers and texts,
// written as JSON.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace blt {

namespace state_detail {
struct Node;
}

class StateReader;

// Collects a state. Copies are the same state. Not thread-safe.
class StateWriter {
 public:
  StateWriter();
  // What is read there.
  static StateWriter of(const StateReader& state);

  void put(std::string_view key, int64_t value);
  void put(std::string_view key, std::string_view text);
  // Puts `state` there without a copy: it is not written to any more.
  void put(std::string_view key, const StateWriter& state);
  // Becomes `state`, which is not written to any more.
  void assign(const StateWriter& state);
  // A new section inside this one.
  StateWriter section(std::string_view key);

  std::string json() const;

 private:
  friend class StateReader;
  std::shared_ptr<state_detail::Node> node_;
};

// Reads a state back. Cheap to copy. Thread-safe.
class StateReader {
 public:
  // name: what messages call the state ("run/step_100/loader.json"). Throws blt::Error when `json` is none.
  StateReader(std::string_view json, std::string name);
  explicit StateReader(const StateWriter& state, std::string name = "state");

  // Throw blt::Error, naming the state and the key, where a key is missing or holds something else.
  int64_t integer(std::string_view key) const;
  std::string text(std::string_view key) const;
  StateReader section(std::string_view key) const;

 private:
  friend class StateWriter;
  std::shared_ptr<const state_detail::Node> node_;
  std::string name_;
};

}  // namespace blt
