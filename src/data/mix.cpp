#include "blt/data/mix.h"

#include <c10/util/Exception.h>

#include <string>
#include <utility>

namespace blt {

Mix::Mix(std::vector<Input> inputs, std::shared_ptr<LoaderMetrics> metrics)
    : inputs_(std::move(inputs)),
      bytes_(inputs_.size(), 0),
      documents_(inputs_.size(), 0),
      metrics_(std::move(metrics)) {
  TORCH_CHECK(!inputs_.empty(), "Mix: no inputs");
  for (const Input& input : inputs_)
    TORCH_CHECK(input.weight > 0, "Mix: a weight is above 0, got ", input.weight);
}

std::optional<Sequence> Mix::next() {
  const auto progress = [&](size_t i) { return static_cast<double>(bytes_[i]) / inputs_[i].weight; };
  size_t behind = 0;
  for (size_t i = 1; i < inputs_.size(); ++i)
    if (progress(i) < progress(behind)) behind = i;
  std::optional<Sequence> sequence = inputs_[behind].stage->next();
  if (!sequence) return sequence;
  bytes_[behind] += static_cast<int64_t>(sequence->bytes.size());
  if (sequence->starts_document) ++documents_[behind];
  if (metrics_) metrics_->sources[behind].documents = documents_[behind];
  return sequence;
}

void Mix::save(StateWriter& out) const {
  for (size_t i = 0; i < inputs_.size(); ++i) {
    StateWriter input = out.section("input" + std::to_string(i));
    input.put("bytes", bytes_[i]);
    input.put("documents", documents_[i]);
    StateWriter stage = input.section("stage");
    inputs_[i].stage->save(stage);
  }
}

void Mix::load(const StateReader& in) {
  for (size_t i = 0; i < inputs_.size(); ++i) {
    const StateReader input = in.section("input" + std::to_string(i));
    bytes_[i] = input.integer("bytes");
    documents_[i] = input.integer("documents");
    inputs_[i].stage->load(input.section("stage"));
  }
}

Concatenate::Concatenate(std::vector<std::unique_ptr<Stage<Sequence>>> inputs) : inputs_(std::move(inputs)) {}

std::optional<Sequence> Concatenate::next() {
  for (; current_ < inputs_.size(); ++current_)
    if (auto sequence = inputs_[current_]->next()) return sequence;
  return std::nullopt;
}

void Concatenate::save(StateWriter& out) const {
  out.put("current", static_cast<int64_t>(current_));
  for (size_t i = 0; i < inputs_.size(); ++i) {
    StateWriter input = out.section("input" + std::to_string(i));
    inputs_[i]->save(input);
  }
}

void Concatenate::load(const StateReader& in) {
  current_ = static_cast<size_t>(in.integer("current"));
  for (size_t i = 0; i < inputs_.size(); ++i) inputs_[i]->load(in.section("input" + std::to_string(i)));
}

}  // namespace blt
