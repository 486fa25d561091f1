// What all operators have in common, whatever they compute: they refuse arguments on several devices and of types that do not go together, and
// take arguments that hold nothing, forward and backward. A schema without a case here fails.
#include <ATen/core/dispatch/Dispatcher.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <functional>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "blt/ops/ngram_embedding.h"
#include "blt/ops/rms_norm_linears.h"
#include "blt/ops/swiglu_linear.h"
#include "cuda_emulation/kernels.h"
#include "message.h"
#include "op_case.h"
#include "ops/cached_attention/check.h"

namespace blt {
namespace {

using Call = std::vector<c10::IValue>;  // the arguments of a schema

struct OperatorCase {
  Call some;                          // a call as it should be, all floating tensors float32
  std::vector<Call> none;             // without bytes, patches, sequences, rows, columns, heads, ...
  std::set<std::string> converted{};  // arguments that may have another floating type
};

at::Tensor floats(at::IntArrayRef sizes) { return at::ones(sizes); }
at::Tensor ints(at::IntArrayRef sizes, int64_t value = 0) { return at::full(sizes, value, at::kInt); }
at::Tensor offsets(const std::vector<int64_t>& lengths) {
  return Segments::from_lengths(lengths, /*allow_empty=*/true).offsets;
}
int64_t longest(const std::vector<int64_t>& lengths) {
  return Segments::from_lengths(lengths, /*allow_empty=*/true).longest;
}
int64_t sum(const std::vector<int64_t>& lengths) {
  int64_t total = 0;
  for (const int64_t length : lengths) total += length;
  return total;
}

using Lengths = std::vector<int64_t>;

Call segment_attention(bool backward, const Lengths& q, const Lengths& k, int64_t heads, int64_t kv_heads,
                       int64_t width) {
  const at::Tensor queries = floats({sum(q), heads, width}), keys = floats({sum(k), kv_heads, width});
  const Call last{offsets(q), offsets(k), longest(q), longest(k), 1.0};
  Call call{queries, keys, keys.clone()};
  if (backward)
    call = {queries.clone(), queries, keys, keys.clone(), queries.clone(), floats({sum(q), heads})};
  call.insert(call.end(), last.begin(), last.end());
  return call;
}

Call window_attention(bool backward, const Lengths& documents, int64_t heads, int64_t kv_heads) {
  const int64_t rows = sum(documents);
  const at::Tensor q = floats({rows, heads, 8}), k = floats({rows, kv_heads, 8});
  const Call last{offsets(documents), longest(documents), int64_t{3}, 1.0};
  Call call{q, k, k.clone()};
  if (backward) call = {q.clone(), q, k, k.clone(), q.clone(), floats({rows, heads})};
  call.insert(call.end(), last.begin(), last.end());
  return call;
}

Call segment_pool(const Lengths& patches, int64_t columns, const char* rule) {
  return {floats({sum(patches), columns}), offsets(patches), longest(patches), std::string(rule)};
}
Call segment_pool_backward(const Lengths& patches, int64_t columns, const char* rule) {
  const auto count = static_cast<int64_t>(patches.size());
  return {floats({count, columns}), offsets(patches),
          longest(patches),         ints({std::string(rule) == "mean" ? 0 : count, columns}),
          std::string(rule),        sum(patches)};
}

Call ngram_ids(const Lengths& documents, const Lengths& sizes) {
  return {ints({sum(documents)}, 5),
          offsets(documents),
          longest(documents),
          c10::List<int64_t>(sizes),
          int64_t{7},
          int64_t{1},
          0.0,
          int64_t{0}};
}
Call ngram_embedding(const Lengths& documents, const Lengths& sizes, int64_t columns) {
  const auto tables = static_cast<int64_t>(sizes.size());
  return {ints({sum(documents)}, 5),
          offsets(documents),
          longest(documents),
          floats({10, columns}),
          sizes.empty() ? c10::IValue() : c10::IValue(floats({tables * 7, columns})),
          c10::List<int64_t>(sizes),
          int64_t{7},
          int64_t{1},
          0.0,
          int64_t{0}};
}
Call merge_rows(int64_t rows, int64_t columns) {
  c10::List<at::Tensor> ids, values, counts;
  for (int i = 0; i < 2; ++i) {
    ids.push_back(at::arange(rows, at::kInt));
    values.push_back(floats({rows, columns}));
    counts.push_back(ints({}, rows));
  }
  return {ids, values, counts};
}
Call row_adamw(int64_t rows, int64_t columns, int64_t touched, bool touched_only, bool by_row = false) {
  const at::Tensor table = floats({rows, columns});
  return {table,
          table.clone(),
          by_row ? floats({rows}) : table.clone(),
          at::arange(touched, at::kInt),
          floats({touched, columns}),
          ints({}, touched),
          floats({}),
          0.1,
          0.9,
          0.95,
          1e-8,
          0.1,
          floats({}),
          touched_only,
          int64_t{0},
          int64_t{0},
          at::zeros({rows, columns}, at::kBFloat16)};
}
Call rms_norm(bool backward, int64_t rows) {
  const at::Tensor x = floats({rows, 8}), weight = floats({8});
  if (backward) return {x.clone(), x, weight, floats({rows}), x.clone()};
  return {x, weight, 1e-5};
}
Call swiglu(bool backward, int64_t rows, int64_t columns) {
  Call call{floats({rows, columns}), floats({rows, columns})};
  if (backward) call.emplace_back(floats({rows, columns}));
  return call;
}
Call cross_entropy(bool backward, int64_t rows) {
  const at::Tensor logits = floats({rows, 9});
  if (backward) return {floats({rows}), logits, ints({rows}, 2), floats({rows, 2})};
  return {logits, ints({rows}, 2)};
}
Call rope(int64_t rows, int64_t heads, int64_t width) {
  return {floats({rows, heads, width}), ints({rows}, 1), floats({3, width / 2}), floats({3, width / 2}),
          false};
}
Call linear(int64_t rows, int64_t in, int64_t out) { return {floats({rows, in}), floats({out, in})}; }
Call product(int64_t rows, int64_t in, int64_t out) { return {floats({rows, in}), floats({in, out})}; }
// Each kind of kernel has a way of its own to pack a weight.
Call packed_linear(int64_t rows, int64_t in, int64_t out) {
  static const auto pack = c10::Dispatcher::singleton()
                               .findSchemaOrThrow("blt::pack_weight", "")
                               .typed<at::Tensor(const at::Tensor&)>();
  return {floats({rows, in}), pack.call(floats({out, in})), out};
}
// ... and to lay out a cache.
std::tuple<at::Tensor, at::Tensor> cache() {
  static const auto memory = c10::Dispatcher::singleton()
                                 .findSchemaOrThrow("blt::cache_memory", "")
                                 .typed<std::tuple<at::Tensor, at::Tensor>(const at::Tensor&, int64_t)>();
  const auto [keys, values] = memory.call(floats({1, 1, 8}), ops::kCacheBlock);
  return {keys.fill_(1), values.fill_(1)};
}
Call cache_rows(int64_t rows) {
  const auto [keys, values] = cache();
  return {floats({rows, 1, 8}), floats({rows, 1, 8}), keys, values, int64_t{0}};
}
Call cached_attention(int64_t rows) {
  c10::List<at::Tensor> keys, values;
  for (int64_t i = 0; i < rows; ++i) {
    const auto [own_keys, own_values] = cache();
    keys.push_back(own_keys);
    values.push_back(own_values);
  }
  return {floats({rows, 2, 8}),
          floats({rows, 1, 8}),
          floats({rows, 1, 8}),
          keys,
          values,
          c10::List<int64_t>(Lengths(rows, 4)),
          int64_t{0},
          1.0};
}

std::map<std::string, OperatorCase> cases() {
  const Lengths no_lengths;
  std::map<std::string, OperatorCase> all;
  for (const bool backward : {false, true}) {
    const std::string name = backward ? "_backward" : "";
    const auto attend = [&](const Lengths& q, const Lengths& k, int64_t heads, int64_t width) {
      return segment_attention(backward, q, k, heads, 1, width);
    };
    all["segment_attention" + name] = {attend({2, 1}, {1, 3}, 2, 8),
                                       {attend({}, {}, 2, 8), attend({0, 0}, {1, 3}, 2, 8),
                                        attend({2, 1}, {1, 3}, 0, 8), attend({2, 1}, {1, 3}, 2, 0)}};
    const auto within = [&](const Lengths& documents, int64_t heads) {
      return window_attention(backward, documents, heads, 1);
    };
    all["window_attention" + name] = {within({4, 1}, 2), {within({}, 2), within({4, 1}, 0)}};
    const auto pool = [&](const Lengths& patches, int64_t columns, const char* rule) {
      return backward ? segment_pool_backward(patches, columns, rule) : segment_pool(patches, columns, rule);
    };
    all["segment_pool" + name] = {
        pool({2, 3}, 8, "max"),
        {pool({}, 8, "max"), pool({2, 3}, 0, "max"), pool({}, 8, "mean"), pool({2, 3}, 0, "mean")}};
    all["rms_norm" + name] = {rms_norm(backward, 5), {rms_norm(backward, 0)}};
    all["swiglu" + name] = {swiglu(backward, 3, 8), {swiglu(backward, 0, 8), swiglu(backward, 3, 0)}};
    all["cross_entropy" + name] = {cross_entropy(backward, 4), {cross_entropy(backward, 0)}};
  }
  all["ngram_ids"] = {ngram_ids({3, 2}, {3, 4}), {ngram_ids({}, {3, 4}), ngram_ids({3, 2}, {})}};
  all["ngram_embedding"] = {
      ngram_embedding({3, 2}, {3, 4}, 8),
      {ngram_embedding({}, {3, 4}, 8), ngram_embedding({3, 2}, {}, 8), ngram_embedding({3, 2}, {3, 4}, 0)}};
  all["touched_rows"] = {{floats({3, 8}), ints({3, 1}), int64_t{7}},
                         {{floats({0, 8}), ints({0, 2}), int64_t{7}},
                          {floats({3, 8}), ints({3, 0}), int64_t{7}},
                          {floats({3, 0}), ints({3, 1}), int64_t{7}}}};
  all["byte_table_gradient"] = {
      {floats({3, 8}), ints({3}), int64_t{10}},
      {{floats({0, 8}), ints({0}), int64_t{10}}, {floats({3, 0}), ints({3}), int64_t{10}}}};
  all["merge_rows"] = {merge_rows(4, 8), {merge_rows(0, 8), merge_rows(4, 0)}};
  all["rows_norm"] = {
      {floats({4, 8}), ints({}, 3)},
      {{floats({0, 8}), ints({})}, {floats({4, 0}), ints({}, 3)}, {floats({4, 8}), ints({})}}};
  all["row_adamw_"] = {row_adamw(5, 8, 2, true), {}, {"values"}};
  for (const bool touched_only : {false, true})
    for (const bool by_row : {false, true})
      for (const auto& [rows, columns, touched] :
           std::vector<std::tuple<int64_t, int64_t, int64_t>>{{0, 8, 0}, {5, 0, 2}, {5, 8, 0}})
        all["row_adamw_"].none.push_back(row_adamw(rows, columns, touched, touched_only, by_row));
  for (const char* name : {"rope", "rope_"})
    all[name] = {rope(3, 2, 8), {rope(0, 2, 8), rope(3, 0, 8), rope(3, 2, 0)}};
  all["add_rms_norm"] = {{floats({5, 8}), floats({5, 8}), floats({8}), 1e-5},
                         {{floats({0, 8}), floats({0, 8}), floats({8}), 1e-5}}};
  all["dropout_add"] = {{floats({3, 8}), floats({3, 8}), 0.5, int64_t{1}},
                        {{floats({0, 8}), floats({0, 8}), 0.5, int64_t{1}},
                         {floats({0, 8}), c10::IValue(), 0.5, int64_t{1}},
                         {floats({0, 8}), c10::IValue(), 1.0, int64_t{1}}}};
  all["linear"] = {linear(3, 8, 5), {linear(0, 8, 5), linear(3, 0, 5), linear(3, 8, 0)}};
  all["product"] = {product(3, 8, 5), {product(0, 8, 5), product(3, 0, 5), product(3, 8, 0)}};
  all["pack_weight"] = {{floats({5, 8})}, {{floats({0, 8})}, {floats({5, 0})}}};
  all["packed_linear"] = {packed_linear(3, 8, 5),
                          {packed_linear(0, 8, 5), packed_linear(3, 0, 5), packed_linear(3, 8, 0)}};
  all["cache_memory"] = {{floats({2, 1, 8}), ops::kCacheBlock},
                         {{floats({0, 1, 8}), ops::kCacheBlock}, {floats({2, 1, 8}), int64_t{0}}}};
  all["cache_rows"] = {cache_rows(2), {cache_rows(0)}};
  all["cached_attention"] = {cached_attention(2), {cached_attention(0)}};
  return all;
}

c10::OperatorHandle handle(const std::string& name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(("blt::" + name).c_str(), "");
}

// A copy whose tensors nobody else changes.
Call copied(const Call& call) {
  Call result;
  for (const c10::IValue& value : call) result.push_back(value.deepcopy());
  return result;
}

// Calls f with the name of each tensor of a call and a way to put another one in its place, elements of lists too.
void for_each_tensor(const std::string& name, const Call& call,
                     const std::function<void(const std::string& argument, const at::Tensor&,
                                              const std::function<Call(const at::Tensor&)>& with)>& f) {
  for (size_t i = 0; i < call.size(); ++i) {
    const std::string argument = handle(name).schema().arguments()[i].name();
    if (call[i].isTensor()) {
      f(argument, call[i].toTensor(), [&](const at::Tensor& other) {
        Call changed = copied(call);
        changed[i] = other;
        return changed;
      });
    } else if (call[i].isTensorList()) {
      const std::vector<at::Tensor> tensors = call[i].toTensorVector();
      for (size_t t = 0; t < tensors.size(); ++t)
        f(argument, tensors[t], [&](const at::Tensor& other) {
          Call changed = copied(call);
          std::vector<at::Tensor> list = tensors;
          list[t] = other;
          changed[i] = c10::List<at::Tensor>(list);
          return changed;
        });
    }
  }
}

int64_t count_tensors(const std::string& name, const Call& call, bool floating) {
  int64_t count = 0;
  for_each_tensor(name, call, [&](const std::string&, const at::Tensor& x, const auto&) {
    count += !floating || x.is_floating_point();
  });
  return count;
}

// The kernel of the CPU (or what stands in its place), whatever the arguments.
void call_kernel(const std::string& name, const Call& call) {
  Call stack = call;
  if (handle(name).hasKernelForDispatchKey(c10::DispatchKey::CPU))
    handle(name).callBoxedForDispatchKey(c10::DispatchKey::CPU, stack);
  else  // made of others, whatever the device
    handle(name).callBoxed(stack);
}

// As a program does; then the backward, in all inputs that it may be taken in.
void call_and_go_back(const std::string& name, const Call& call) {
  Call stack = copied(call);
  for (size_t i = 0; i < stack.size(); ++i)
    if (stack[i].isTensor() && stack[i].toTensor().is_floating_point() && !name.ends_with("_") &&
        handle(name).schema().arguments()[i].name() !=
            "ngram_table")  // the schema has no place for its gradient
      stack[i].toTensor().requires_grad_();
  handle(name).callBoxed(stack);
  Tensors roots;
  for (const c10::IValue& result : stack)
    if (result.isTensor() && result.toTensor().requires_grad()) roots.push_back(result.toTensor().sum());
  if (!roots.empty()) torch::autograd::backward(roots, {}, /*retain_graph=*/true);
}

// With the CPU's kernels, then with CUDA's, emulated.
void with_each_kernel(const std::function<void(const std::string& where)>& f) {
  f("on the CPU");
  const emulation::EmulatedCuda cuda;
  f("emulated");
}

void expect_refused(const std::string& name, const std::string& what, const std::vector<std::string>& words,
                    const std::function<void()>& call) {
  const std::string said = message_of(call);
  // A backward may say it in the words of its operator, and an operator in those of the one that it contains.
  const std::string by = said.substr(0, said.find(':'));
  EXPECT_TRUE(name.find(by) != name.npos || cases().count(by) != 0) << name << ": " << what << ": " << said;
  for (const std::string& word : words)
    EXPECT_NE(said.find(word), said.npos) << name << ": " << what << ": " << said;
}

TEST(EveryOperator, HasACaseHere) {
  const auto all = cases();
  std::set<std::string> names;
  for (const c10::OperatorName& op : c10::Dispatcher::singleton().getAllOpNames())
    if (op.name.starts_with("blt::") && op.name != "blt::device_name")  // which is no arithmetic
      names.insert(op.name.substr(5));
  for (const std::string& name : names) EXPECT_EQ(all.count(name), 1u) << name;
  EXPECT_EQ(names.size(), all.size());
}

TEST(EveryOperator, TakesItsCase) {
  with_each_kernel([](const std::string& where) {
    for (const auto& [name, c] : cases())
      EXPECT_EQ(message_of([&, n = name, call = c.some] { call_and_go_back(n, call); }),
                "(nothing was thrown)")
          << name << " " << where;
  });
}

TEST(EveryOperator, RefusesArgumentsOnSeveralDevices) {
  const auto refuses = [](const std::string& where, const auto& call_it) {
    for (const auto& [name, c] : cases()) {
      if (count_tensors(name, c.some, /*floating=*/false) < 2) continue;
      for_each_tensor(name, c.some,
                      [&, n = name](const std::string& argument, const at::Tensor& x, const auto& with) {
                        expect_refused(n, argument + " " + where, {" on meta", " on cpu"},
                                       [&] { call_it(n, with(x.to(at::kMeta))); });
                      });
    }
  };
  with_each_kernel([&](const std::string& where) { refuses(where, call_kernel); });
  refuses("as a program calls it", [](const std::string& name, const Call& call) {
    Call stack = call;
    handle(name).callBoxed(stack);
  });
}

TEST(EveryOperator, RefusesTypesThatDoNotGoTogether) {
  with_each_kernel([](const std::string& where) {
    for (const auto& [name, c] : cases()) {
      const bool alone = count_tensors(name, c.some, /*floating=*/true) < 2;
      for_each_tensor(name, c.some,
                      [&, n = name, converted = c.converted](const std::string& argument, const at::Tensor& x,
                                                             const auto& with) {
                        if (x.is_floating_point() && (alone || converted.count(argument) != 0)) return;
                        const at::ScalarType other = x.is_floating_point() ? at::kDouble : at::kLong;
                        expect_refused(n, argument + " " + where, {x.is_floating_point() ? "Double" : "Long"},
                                       [&] { call_kernel(n, with(x.to(other))); });
                      });
    }
  });
}

TEST(EveryOperator, TakesNothing) {
  with_each_kernel([](const std::string& where) {
    for (const auto& [name, c] : cases())
      for (size_t i = 0; i < c.none.size(); ++i)
        EXPECT_EQ(message_of([&, n = name, call = c.none[i]] { call_and_go_back(n, call); }),
                  "(nothing was thrown)")
            << name << ", its call " << i << " of nothing, " << where;
  });
}

// Those that are made of other operators and have no schema.
TEST(EveryOperator, TakesNothingWhereItIsMadeOfOthers) {
  with_each_kernel([](const std::string&) {
    const auto leaf = [](at::IntArrayRef sizes) { return at::ones(sizes).requires_grad_(); };
    for (const int64_t rows : {0, 3}) {
      const at::Tensor x = leaf({rows, 8}), gain = leaf({8}), first = leaf({5, 8}), second = leaf({0, 8});
      const auto results = ops::rms_norm_linears(x, gain, 1e-5, {first, second});
      (results[0].sum() + results[1].sum()).backward();
      EXPECT_EQ(x.grad().sizes(), x.sizes());
      EXPECT_EQ(second.grad().sizes(), second.sizes());
    }
    for (const auto& [rows, hidden] : std::vector<std::pair<int64_t, int64_t>>{{0, 8}, {3, 0}}) {
      const at::Tensor gate = leaf({rows, hidden}), up = leaf({rows, hidden}), down = leaf({4, hidden});
      const at::Tensor out = ops::swiglu_linear(gate, up, down);
      out.sum().backward();
      EXPECT_EQ(out.sizes(), at::IntArrayRef({rows, 4}));
      EXPECT_EQ(gate.grad().sizes(), gate.sizes());
      EXPECT_EQ(down.grad().sizes(), down.sizes());
    }
    const NgramHash hash{{3, 4}, 7, 1};
    const at::Tensor bytes = at::empty({0}, at::kInt), ids = at::empty({0, 2}, at::kInt),
                     table = leaf({10, 8});
    const ops::DistinctRows distinct = ops::distinct_rows(ids);
    EXPECT_EQ(distinct.ids.size(0), 0);
    std::vector<RowGradient> gradients;
    const at::Tensor out =
        ops::ngram_embedding_of_rows(bytes, table, ids, distinct, at::empty({0, 8}), hash, &gradients);
    EXPECT_EQ(out.sizes(), at::IntArrayRef({0, 8}));
    out.sum().backward();
    EXPECT_EQ(table.grad().sizes(), table.sizes());
    ASSERT_EQ(gradients.size(), 1u);
    EXPECT_EQ(gradients[0].capacity, 0);
  });
}

}  // namespace
}  // namespace blt
