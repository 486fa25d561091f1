// segment_pool: schema, door, derivative, shapes.
#include "blt/ops/segment_pool.h"

#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "ops/door.h"
#include "ops/segment_pool/check.h"

namespace blt::ops {
namespace {

using at::Tensor;

TORCH_LIBRARY_FRAGMENT(blt, m) {
  m.def("segment_pool(Tensor x, Tensor offsets, int longest, str pooling) -> (Tensor, Tensor winners)");
  m.def(
      "segment_pool_backward(Tensor grad, Tensor offsets, int longest, Tensor winners, str pooling, int "
      "rows) -> "
      "Tensor");
}

using Forward = std::tuple<Tensor, Tensor>(const Tensor& x, const Tensor& offsets, int64_t longest,
                                           std::string_view pooling);
using Backward = Tensor(const Tensor& grad, const Tensor& offsets, int64_t longest, const Tensor& winners,
                        std::string_view pooling, int64_t rows);

struct SegmentPoolFunction : torch::autograd::Function<SegmentPoolFunction> {
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* context, const Tensor& x,
                                                const Tensor& offsets, int64_t longest,
                                                std::string_view pooling) {
    const at::AutoDispatchBelowADInplaceOrView below;
    static const auto op = schema<Forward>("blt::segment_pool");
    auto [out, winners] = op.call(x, offsets, longest, pooling);
    context->save_for_backward({offsets, winners});
    context->saved_data["longest"] = longest;
    context->saved_data["pooling"] = std::string(pooling);
    context->saved_data["rows"] = x.size(0);
    context->mark_non_differentiable({winners});
    return {out, winners};
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    const auto saved = context->get_saved_variables();
    static const auto op = schema<Backward>("blt::segment_pool_backward");
    return {op.call(grads[0], saved[0], context->saved_data["longest"].toInt(), saved[1],
                    context->saved_data["pooling"].toStringView(), context->saved_data["rows"].toInt()),
            Tensor(), Tensor(), Tensor()};
  }
};

std::tuple<Tensor, Tensor> autograd(const Tensor& x, const Tensor& offsets, int64_t longest,
                                    std::string_view pooling) {
  auto result = SegmentPoolFunction::apply(x, offsets, longest, pooling);
  return {std::move(result[0]), std::move(result[1])};
}

std::tuple<Tensor, Tensor> meta(const Tensor& x, const Tensor& offsets, int64_t, std::string_view pooling) {
  check_segment_pool(x, offsets);
  const int64_t count = offsets.numel() - 1;
  const int64_t winners = pooling_named(pooling) == Pooling::kMean ? 0 : count;
  return {x.new_empty({count, x.size(1)}), x.new_empty({winners, x.size(1)}, x.options().dtype(at::kInt))};
}

Tensor meta_backward(const Tensor& grad, const Tensor& offsets, int64_t, const Tensor& winners,
                     std::string_view pooling, int64_t rows) {
  check_segment_pool_backward(grad, offsets, winners, pooling_named(pooling));
  return grad.new_empty({rows, grad.size(1)});
}

TORCH_LIBRARY_IMPL(blt, Autograd, m) { m.impl("segment_pool", autograd); }

TORCH_LIBRARY_IMPL(blt, Meta, m) {
  m.impl("segment_pool", meta);
  m.impl("segment_pool_backward", meta_backward);
}

}  // namespace

void check_segment_pool(const Tensor& x, const Tensor& offsets) {
  TORCH_CHECK(x.dim() == 2 && x.is_floating_point(), "segment_pool: x must be [N, C] floating, got ",
              x.scalar_type(), " ", x.sizes());
  check_one_device("segment_pool", {"x", x}, {{"offsets", offsets}});
}

void check_segment_pool_backward(const Tensor& grad, const Tensor& offsets, const Tensor& winners,
                                 Pooling pooling) {
  check_one_device("segment_pool_backward", {"grad", grad}, {{"offsets", offsets}, {"winners", winners}});
  TORCH_CHECK(grad.dim() == 2 && grad.is_floating_point() && grad.size(0) == offsets.numel() - 1,
              "segment_pool_backward: grad must be floating [", offsets.numel() - 1, ", C], got ",
              grad.scalar_type(), " ", grad.sizes());
  TORCH_CHECK(
      pooling == Pooling::kMean || (winners.sizes() == grad.sizes() && winners.scalar_type() == at::kInt),
      "segment_pool_backward: winners must be int32 like grad ", grad.sizes(), ", got ",
      winners.scalar_type(), " ", winners.sizes());
}

Pooling pooling_named(std::string_view name) {
  for (const Pooling pooling : {Pooling::kMax, Pooling::kMean, Pooling::kMin})
    if (name == name_of(pooling)) return pooling;
  TORCH_CHECK(false, "segment_pool: pooling must be max, mean or min, got ", name);
}

std::string_view name_of(Pooling pooling) {
  return pooling == Pooling::kMax ? "max" : pooling == Pooling::kMean ? "mean" : "min";
}

Tensor segment_pool(const Tensor& x, const Segments& segments, Pooling pooling) {
  check_segment_pool(x, segments.offsets);
  check_covers("segment_pool", "x", segments, x);
  static const auto op = schema<Forward>("blt::segment_pool");
  return std::get<0>(op.call(x, segments.offsets, segments.longest, name_of(pooling)));
}

}  // namespace blt::ops
