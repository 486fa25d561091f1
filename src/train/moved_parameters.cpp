#include "train/moved_parameters.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <utility>

namespace blt {

MovedParameters::MovedParameters(Group& group, torch::nn::Module& module,
                                 const std::vector<Trained>& parameters, const Buckets& buckets, bool overlap)
    : group_(group), parameters_(parameters), buckets_(buckets), overlap_(overlap) {
  std::vector<size_t> way_of(buckets.all().size());
  for (size_t b = 0; b < buckets.all().size(); ++b) {
    if (buckets.all()[b].unit >= 0) continue;
    way_of[b] = ways_.size();
    ways_.push_back({.bucket = &buckets.all()[b]});
  }
  for (const std::shared_ptr<torch::nn::Module>& child : module.modules()) {
    auto* reader = dynamic_cast<Arriving*>(child.get());
    std::set<size_t> ways;
    for (const at::Tensor& own : child->parameters(/*recurse=*/false)) {
      const auto found = std::find_if(parameters.begin(), parameters.end(),
                                      [&](const Trained& it) { return it.parameter.is_same(own); });
      if (found == parameters.end() || found->unit >= 0) continue;
      const size_t way = way_of[buckets.bucket_of(static_cast<size_t>(found - parameters.begin()))];
      ways.insert(way);
      if (reader == nullptr) ways_[way].is_read_by_all = false;
    }
    if (reader == nullptr || ways.empty()) continue;
    reader->arrive = [this, ways] {
      for (const size_t way : ways) arrive(way);
    };
    readers_.push_back(child);
  }
}

MovedParameters::~MovedParameters() {
  for (const auto& reader : readers_) dynamic_cast<Arriving&>(*reader).arrive = nullptr;
}

void MovedParameters::send() {
  next_ = ways_.size();
  if (next_ > 0) begin_next();
  for (size_t way = 0; way < ways_.size(); ++way)
    if (!ways_[way].is_read_by_all) arrive(way);
  if (!overlap_) finish();
}

void MovedParameters::finish() {
  for (size_t way = ways_.size(); way-- > 0;) arrive(way);
}

void MovedParameters::begin_next() {
  const at::NoGradGuard no_grad;
  Way& way = ways_[--next_];
  const auto values = [&](const Buckets::Piece& piece) { return parameters_[piece.parameter].parameter; };
  way.all = at::empty({way.bucket->size}, values(way.bucket->pieces[0]).options().requires_grad(false));
  const Part range = buckets_.range_of(group_.rank(), *way.bucket);
  const at::Tensor own = at::zeros({range.end - range.begin}, way.all.options());
  for (const Buckets::Piece& piece : way.bucket->pieces) {
    const int64_t begin = std::max(range.begin, piece.offset);
    const int64_t end = std::min(range.end, piece.offset + piece.numel);
    if (begin < end)
      own.slice(0, begin - range.begin, end - range.begin)
          .copy_(values(piece).view({-1}).slice(0, begin - piece.offset, end - piece.offset));
  }
  way.coming = group_.all_gather(way.all, own,
                                 fmt::format("parameters, {} of {}", ways_.size() - next_, ways_.size()));
}

void MovedParameters::arrive(size_t index) {
  if (!ways_[index].coming && index >= next_) return;  // it is there
  while (next_ > 0) begin_next();
  const at::NoGradGuard no_grad;
  Way& way = ways_[index];
  std::exchange(way.coming, {})->wait();
  const at::Tensor all = std::exchange(way.all, {});
  for (const Buckets::Piece& piece : way.bucket->pieces)
    parameters_[piece.parameter].parameter.detach().view({-1}).copy_(
        all.slice(0, piece.offset, piece.offset + piece.numel));
}

}  // namespace blt
