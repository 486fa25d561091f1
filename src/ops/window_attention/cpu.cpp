// window_attention on the CPU: tensors to pointers, documents and heads to threads.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include <algorithm>
#include <vector>

#include "ops/cpu/kernel_type.h"
#include "ops/cpu/tasks.h"
#include "ops/door.h"
#include "ops/window_attention/check.h"
#include "ops/window_attention/cpu_kernel.h"

namespace blt::ops {
namespace {

using at::Tensor;

int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

std::vector<AttentionDocument> documents_of(const Tensor& offsets, int64_t rows) {
  const int32_t* o = checked_offsets("window_attention", offsets, rows);
  std::vector<AttentionDocument> documents;
  for (int64_t d = 0; d + 1 < offsets.numel(); ++d) {
    const int64_t length = o[d + 1] - o[d];
    TORCH_CHECK(length > 0, "window_attention: document ", d, " is empty");
    documents.push_back(
        {o[d], length, 0, round_up(length, 32), round_up(length, kAttentionQueries) / kAttentionQueries});
  }
  return documents;
}

template <class T>
AttentionInputs<T> inputs(const Tensor& q, const Tensor& k, const Tensor& v, int64_t window, double scale) {
  constexpr int64_t kLanes = 64 / static_cast<int64_t>(sizeof(T));
  if (window >= q.size(0)) window = 0;  // sees all; and positions plus the window cannot overflow
  return {q.const_data_ptr<T>(),
          k.const_data_ptr<T>(),
          v.const_data_ptr<T>(),
          q.size(1),
          k.size(1),
          q.size(2),
          round_up(q.size(2), kLanes),
          window,
          static_cast<T>(scale)};
}

// Where things that documents have different numbers of start: [documents + 1].
template <class Count>
std::vector<int64_t> starts_of(const std::vector<AttentionDocument>& documents, const Count& count) {
  std::vector<int64_t> starts{0};
  for (const AttentionDocument& document : documents) starts.push_back(starts.back() + count(document));
  return starts;
}

template <class T>
void run(const AttentionInputs<T>& in, const std::vector<AttentionDocument>& documents,
         const AttentionOutputs<T>& to) {
  // Keys and values of all documents, packed once and read by the queries' tasks.
  const std::vector<int64_t> rows = starts_of(documents, [](const auto& d) { return d.padded; });
  const auto options = at::TensorOptions().dtype(c10::CppTypeToScalarType<T>::value);
  const Tensor keys = at::empty({rows.back() * in.kv_heads * in.width}, options);
  const Tensor values = at::empty({rows.back() * in.kv_heads * in.wide}, options);
  T* const keys_data = keys.template data_ptr<T>();
  T* const values_data = values.template data_ptr<T>();
  const auto packed = [&](int64_t d, int64_t kv_head) {
    const int64_t row = rows[d] * in.kv_heads + kv_head * documents[d].padded;
    return PackedKeys<T>{keys_data + row * in.width, values_data + row * in.wide};
  };
  const auto pack = BLT_KERNEL(attention_pack<T>);
  run_tasks<T>(documents.size() * in.kv_heads, 0, [&](int64_t task, T*) {
    AttentionDocument document = documents[task / in.kv_heads];
    document.head = task % in.kv_heads;
    pack(in, document, packed(task / in.kv_heads, document.head));
  });

  const std::vector<int64_t> tasks = starts_of(documents, [&](const auto& d) { return d.blocks * in.heads; });
  const int64_t scratch_size = kAttentionQueries * (kAttentionKeys + in.wide + in.width + 2);
  const int64_t group = in.heads / in.kv_heads;
  const auto forward = BLT_KERNEL(attention_forward<T>);
  run_tasks<T>(tasks.back(), scratch_size, [&](int64_t task, T* scratch) {
    const int64_t d = std::upper_bound(tasks.begin(), tasks.end(), task) - tasks.begin() - 1;
    AttentionDocument document = documents[d];
    document.head = (task - tasks[d]) / document.blocks;
    forward(in, document, (task - tasks[d]) % document.blocks, packed(d, document.head / group), to, scratch);
  });
}

template <class T>
void run_backward(const AttentionInputs<T>& in, std::vector<AttentionDocument> documents,
                  const AttentionGradients<T>& to) {
  // The longest first: who starts a long one last keeps the others waiting.
  std::stable_sort(documents.begin(), documents.end(),
                   [](const auto& a, const auto& b) { return a.length > b.length; });
  const int64_t padded = documents.empty() ? 0 : documents.front().padded;
  const int64_t scratch_size = kAttentionQueries * (2 * kAttentionKeys + 3 * in.wide + 2 * in.width + 2) +
                               padded * (3 * in.wide + 2 * in.width);
  const auto backward = BLT_KERNEL(attention_backward<T>);
  run_tasks<T>(documents.size() * in.kv_heads, scratch_size, [&](int64_t task, T* scratch) {
    AttentionDocument document = documents[task / in.kv_heads];
    document.head = task % in.kv_heads;
    backward(in, document, to, scratch);
  });
}

std::tuple<Tensor, Tensor> forward(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& offsets,
                                   int64_t, int64_t window, double scale) {
  check_window_attention(q, k, v, offsets, window);
  const std::vector<AttentionDocument> documents = documents_of(offsets, q.size(0));
  const at::ScalarType dtype = kernel_type(q);
  const Tensor q_ = ready(q, dtype), k_ = ready(k, dtype), v_ = ready(v, dtype);
  const Tensor out = at::empty(q.sizes(), q_.options());
  const Tensor lse = at::empty({q.size(0), q.size(1)}, q_.options());
  with_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    run<T>(inputs<T>(q_, k_, v_, window, scale), documents, {out.data_ptr<T>(), lse.data_ptr<T>()});
  });
  return {out.to(q.scalar_type()), lse};
}

std::tuple<Tensor, Tensor, Tensor> backward(const Tensor& grad, const Tensor& q, const Tensor& k,
                                            const Tensor& v, const Tensor& out, const Tensor& lse,
                                            const Tensor& offsets, int64_t, int64_t window, double scale) {
  check_window_attention_backward(grad, q, k, v, out, lse, offsets, window);
  const at::ScalarType dtype = kernel_type(q);
  const std::vector<AttentionDocument> documents = documents_of(offsets, q.size(0));
  const Tensor q_ = ready(q, dtype), k_ = ready(k, dtype), v_ = ready(v, dtype);
  const Tensor grad_ = ready(grad, dtype), out_ = ready(out, dtype), lse_ = lse.contiguous();
  const Tensor grad_q = at::empty_like(q_), grad_k = at::empty_like(k_), grad_v = at::empty_like(v_);
  with_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    run_backward<T>(inputs<T>(q_, k_, v_, window, scale), documents,
                    {grad_.const_data_ptr<T>(), out_.const_data_ptr<T>(), lse_.const_data_ptr<T>(),
                     grad_q.data_ptr<T>(), grad_k.data_ptr<T>(), grad_v.data_ptr<T>()});
  });
  return {grad_q.to(q.scalar_type()), grad_k.to(q.scalar_type()), grad_v.to(q.scalar_type())};
}

}  // namespace

TORCH_LIBRARY_IMPL(blt, CPU, m) {
  m.impl("window_attention", forward);
  m.impl("window_attention_backward", backward);
}

}  // namespace blt::ops
