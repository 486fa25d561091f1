#include "train/zero1.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace blt {

Part Zero1::range_of(int64_t rank, const Buckets::Bucket& bucket) const {
  const int64_t share = bucket.size / group().size();
  return {rank * share, (rank + 1) * share};
}

Part Zero1::rows_of(int64_t rank, const Table& table) const {
  const int64_t rows = table.table.parameter.size(0);
  return {rows * rank / group().size(), rows * (rank + 1) / group().size()};
}

Parts Zero1::parts_of(int64_t rank) const {
  Parts parts;
  for (const Buckets::Bucket& bucket : buckets().all()) {
    const Part range = range_of(rank, bucket);
    for (const Buckets::Piece& piece : bucket.pieces) {
      const auto inside = [&](int64_t place) {
        return std::clamp<int64_t>(place - piece.offset, 0, piece.numel);
      };
      parts[parameters()[piece.parameter].name] = {inside(range.begin), inside(range.end)};
    }
  }
  for (const Table& table : tables()) {
    const Part rows = rows_of(rank, table);
    const int64_t width = table.table.parameter.size(1);
    parts[table.table.name] = {rows.begin * width, rows.end * width};
  }
  return parts;
}

at::Tensor Zero1::sums_of(size_t bucket) const {
  const Part range = range_of(group().rank(), buckets().all()[bucket]);
  return buckets().all()[bucket].values.slice(0, range.begin, range.end);
}

at::Tensor Zero1::place_of(size_t parameter, const Part& part) {
  return parameters()[parameter].parameter.detach().view({-1}).slice(0, part.begin, part.end);
}

Group::Pending Zero1::send(size_t bucket, std::string_view what) {
  return group().reduce_scatter(sums_of(bucket), buckets().all()[bucket].values, what);
}

Gradients Zero1::collect(const std::vector<bool>& took_part, std::vector<RowGradient> rows) {
  Gradients result;
  const Parts own = parts();
  for (size_t i = 0; i < parameters().size(); ++i) {
    const Trained& item = parameters()[i];
    const Part part = own.at(item.name);
    if (!took_part[i] || part.begin == part.end) continue;
    const size_t bucket = buckets().bucket_of(i);
    const int64_t offset =
        buckets().piece(i).offset - range_of(group().rank(), buckets().all()[bucket]).begin;
    result.dense.push_back({item.name, item.parameter,
                            sums_of(bucket).slice(0, offset + part.begin, offset + part.end),
                            place_of(i, part)});
  }
  for (size_t t = 0; t < tables().size(); ++t) {
    if (rows[t].capacity == 0) continue;
    const Part range = rows_of(group().rank(), tables()[t]);
    const auto* ids = rows[t].ids.data_ptr<int32_t>();
    const int64_t begin = std::lower_bound(ids, ids + rows[t].capacity, range.begin) - ids;
    const int64_t end = std::lower_bound(ids, ids + rows[t].capacity, range.end) - ids;
    const RowGradient inside{.ids = rows[t].ids.slice(0, begin, end) - range.begin,
                             .values = rows[t].values.slice(0, begin, end).clone(),  // the others may go
                             .count = at::full({}, end - begin, rows[t].ids.options()),
                             .capacity = end - begin};
    result.rows.push_back({tables()[t].table.name, tables()[t].table.parameter, inside});
  }
  return result;
}

at::Tensor Zero1::squared_norms(const Gradients& gradients, std::span<const std::string> modules) {
  at::Tensor squares = blt::squared_norms(gradients, modules);
  group().sum(squares, "gradient norms")->wait();
  return squares;
}

std::vector<std::pair<std::string, at::Tensor>> Zero1::own_parameters() {
  const Parts own = parts();
  std::vector<std::pair<std::string, at::Tensor>> result;
  for (size_t i = 0; i < parameters().size(); ++i) {
    const std::string& name = parameters()[i].name;
    if (const Part part = own.at(name); part.begin < part.end) result.emplace_back(name, place_of(i, part));
  }
  for (const Table& table : tables()) {
    const Part part = own.at(table.table.name);
    if (part.begin < part.end)
      result.emplace_back(table.table.name,
                          table.table.parameter.detach().view({-1}).slice(0, part.begin, part.end));
  }
  return result;
}

void Zero1::step(Optimizer& optimizer, const Gradients& gradients, const ClipResult& clip, double factor) {
  optimizer.step(gradients, clip, factor);
  put_together();
}

void Zero1::put_together() {
  const at::NoGradGuard no_grad;
  std::vector<std::pair<const Buckets::Bucket*, at::Tensor>> whole;  // in the parameters' type
  std::vector<Group::Pending> coming;
  for (size_t b = 0; b < buckets().all().size(); ++b) {
    const Buckets::Bucket& bucket = buckets().all()[b];
    if (!is_whole(bucket)) continue;
    const auto values = [&](const Buckets::Piece& piece) { return parameters()[piece.parameter].parameter; };
    const at::Tensor all = at::empty({bucket.size}, values(bucket.pieces[0]).options().requires_grad(false));
    const Part range = range_of(group().rank(), bucket);
    const at::Tensor own = at::zeros({range.end - range.begin}, all.options());
    for (const Buckets::Piece& piece : bucket.pieces) {
      const int64_t begin = std::max(range.begin, piece.offset);
      const int64_t end = std::min(range.end, piece.offset + piece.numel);
      if (begin < end)
        own.slice(0, begin - range.begin, end - range.begin)
            .copy_(values(piece).view({-1}).slice(0, begin - piece.offset, end - piece.offset));
    }
    coming.push_back(
        group().all_gather(all, own, fmt::format("parameters, {} of {}", b + 1, buckets().all().size())));
    whole.emplace_back(&bucket, all);
  }
  for (const Table& table : tables())
    for (int64_t r = 0; r < group().size(); ++r) {
      const Part rows = rows_of(r, table);
      if (rows.begin < rows.end)
        coming.push_back(group().broadcast(table.table.parameter.detach().slice(0, rows.begin, rows.end), r,
                                           table.table.name));
    }
  for (const Group::Pending& one : coming) one->wait();
  for (const auto& [bucket, all] : whole)
    for (const Buckets::Piece& piece : bucket->pieces) {
      const at::Tensor& parameter = parameters()[piece.parameter].parameter;
      parameter.detach().view({-1}).copy_(all.slice(0, piece.offset, piece.offset + piece.numel));
    }
}

}  // namespace blt
