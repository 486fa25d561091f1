#include "train/zero1.h"

namespace blt {

Parts Zero1::parts() const {
  Parts parts = DataParallel::parts();
  for (size_t i = 0; i < parameters().size(); ++i) parts[parameters()[i].name] = own_part(i);
  return parts;
}

at::Tensor Zero1::sums_of(size_t bucket) const {
  const Part range = own_range(buckets().all()[bucket]);
  return buckets().all()[bucket].values.slice(0, range.begin, range.end);
}

at::Tensor Zero1::place_of(size_t parameter, const Part& part) const {
  return parameters()[parameter].parameter.detach().view({-1}).slice(0, part.begin, part.end);
}

Group::Pending Zero1::send(size_t bucket, std::string_view what) {
  return wire().reduce_scatter(sums_of(bucket), buckets().all()[bucket].values, what);
}

std::vector<Gradients::Dense> Zero1::collect(const std::vector<bool>& took_part) {
  std::vector<Gradients::Dense> result;
  for (size_t i = 0; i < parameters().size(); ++i) {
    if (!took_part[i]) continue;
    const size_t b = buckets().bucket_of(i);
    const Part part = own_part(i);
    const int64_t offset = buckets().piece(i).offset - own_range(buckets().all()[b]).begin;
    // A part that is empty may begin outside, and is an empty slice all the same.
    result.push_back({parameters()[i].name, parameters()[i].parameter,
                      sums_of(b).slice(0, offset + part.begin, offset + part.end), place_of(i, part)});
  }
  return result;
}

std::map<std::string, at::Tensor> Zero1::own_dense() const {
  std::map<std::string, at::Tensor> result;
  for (size_t i = 0; i < parameters().size(); ++i) {
    const Part part = own_part(i);
    if (part.begin < part.end) result[parameters()[i].name] = place_of(i, part);
  }
  return result;
}

void Zero1::move(Optimizer& optimizer, const Gradients& gradients, const ClipResult& clip, double factor) {
  moved_.finish();  // what no forward pass has read since the last step
  optimizer.step(gradients, clip, factor, matrices_);
}

}  // namespace blt
