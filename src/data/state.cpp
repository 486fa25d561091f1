#include "blt/data/state.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>
#include <variant>
#include <vector>

#include "blt/base/error.h"

namespace blt {
namespace state_detail {

// A handful of values, in no order. Stages save their state for every item that they read ahead, so a node costs two allocations.
struct Node {
  using Value = std::variant<int64_t, std::string, std::shared_ptr<Node>>;
  std::vector<std::pair<std::string, Value>> values;

  const Value* find(std::string_view key) const {
    const auto found =
        std::find_if(values.begin(), values.end(), [&](const auto& entry) { return entry.first == key; });
    return found == values.end() ? nullptr : &found->second;
  }
  void set(std::string_view key, Value value) {
    const auto found =
        std::find_if(values.begin(), values.end(), [&](const auto& entry) { return entry.first == key; });
    if (found != values.end()) {
      found->second = std::move(value);
      return;
    }
    if (values.empty()) values.reserve(4);
    values.emplace_back(key, std::move(value));
  }
};

}  // namespace state_detail

namespace {

using nlohmann::json;
using state_detail::Node;

json to_json(const Node& node) {
  json result = json::object();
  for (const auto& [key, value] : node.values) {
    if (const auto* integer = std::get_if<int64_t>(&value)) result[key] = *integer;
    if (const auto* text = std::get_if<std::string>(&value)) result[key] = *text;
    if (const auto* section = std::get_if<std::shared_ptr<Node>>(&value)) result[key] = to_json(**section);
  }
  return result;
}

std::shared_ptr<Node> from_json(const json& value, const std::string& name) {
  if (!value.is_object()) throw Error(name + ": is no saved state: sections are expected");
  auto node = std::make_shared<Node>();
  for (const auto& [key, item] : value.items()) {
    if (item.is_number_integer())
      node->set(key, item.get<int64_t>());
    else if (item.is_string())
      node->set(key, item.get<std::string>());
    else
      node->set(key, from_json(item, name + "." + key));
  }
  return node;
}

template <class T>
const T& get(const Node& node, std::string_view key, const std::string& name, const char* what) {
  const Node::Value* found = node.find(key);
  const T* value = found == nullptr ? nullptr : std::get_if<T>(found);
  if (!value)
    throw Error(name + ": the saved state has no " + what + " '" + std::string(key) +
                "': it is damaged, or of a run with other data settings");
  return *value;
}

}  // namespace

StateWriter::StateWriter() : node_(std::make_shared<Node>()) {}
StateWriter StateWriter::of(const StateReader& state) {
  StateWriter result;
  result.node_->values = state.node_->values;
  return result;
}

void StateWriter::put(std::string_view key, int64_t value) { node_->set(key, value); }
void StateWriter::put(std::string_view key, std::string_view text) { node_->set(key, std::string(text)); }
void StateWriter::put(std::string_view key, const StateWriter& state) { node_->set(key, state.node_); }
void StateWriter::assign(const StateWriter& state) { node_->values = state.node_->values; }
StateWriter StateWriter::section(std::string_view key) {
  StateWriter result;
  put(key, result);
  return result;
}
// A file name may be any bytes, and JSON may not.
std::string StateWriter::json() const {
  return to_json(*node_).dump(1, ' ', false, nlohmann::json::error_handler_t::replace);
}

StateReader::StateReader(std::string_view text, std::string name) : name_(std::move(name)) {
  const json value = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (value.is_discarded()) throw Error(name_ + ": is no saved state: not JSON");
  node_ = from_json(value, name_);
}
StateReader::StateReader(const StateWriter& state, std::string name)
    : node_(state.node_), name_(std::move(name)) {}

int64_t StateReader::integer(std::string_view key) const {
  return get<int64_t>(*node_, key, name_, "integer");
}
std::string StateReader::text(std::string_view key) const {
  return get<std::string>(*node_, key, name_, "text");
}
StateReader StateReader::section(std::string_view key) const {
  StateReader result = *this;
  result.node_ = get<std::shared_ptr<Node>>(*node_, key, name_, "section");
  result.name_ += "." + std::string(key);
  return result;
}

}  // namespace blt
