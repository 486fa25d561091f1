#include "bench/products.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/empty_strided.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/rand.h>
#include <ATen/record_function.h>

#include <algorithm>
#include <mutex>

#include "bench/cuda_clock.h"
#include "bench/timing.h"

namespace blt::bench {
namespace {

struct Layout {
  std::vector<int64_t> sizes, strides;
  at::ScalarType dtype;
  at::Device device;
  explicit Layout(const at::Tensor& x)
      : sizes(x.sizes().vec()), strides(x.strides().vec()), dtype(x.scalar_type()), device(x.device()) {}
  bool operator==(const Layout& other) const {
    return sizes == other.sizes && strides == other.strides && dtype == other.dtype && device == other.device;
  }
};

struct Call {
  Layout a, b;
  bool operator==(const Call& other) const { return a == other.a && b == other.b; }
};

// Callbacks are plain functions, and the backward runs in a thread of its own.
std::mutex mutex;
std::vector<Call> calls;

std::unique_ptr<at::ObserverContext> record(const at::RecordFunction& function) {
  const auto inputs = function.inputs();
  if (std::string_view(function.name()) == "blt::product" && inputs.size() >= 2) {
    const std::lock_guard lock(mutex);
    calls.push_back({Layout(inputs[0].toTensor()), Layout(inputs[1].toTensor())});
  }
  return nullptr;
}

at::Tensor like(const Layout& layout) {
  const auto options = at::TensorOptions(layout.dtype).device(layout.device);
  return at::empty_strided(layout.sizes, layout.strides, options).uniform_(-1, 1);
}

}  // namespace

Products::Products(const std::function<void()>& run) {
  calls.clear();
  const at::CallbackHandle handle = at::addGlobalCallback(
      at::RecordFunctionCallback(record).needsInputs(true).scopes({at::RecordScope::FUNCTION}));
  run();
  at::removeCallback(handle);
  std::vector<Call> seen;
  for (const Call& call : calls) {
    const size_t place = std::find(seen.begin(), seen.end(), call) - seen.begin();
    if (place == seen.size()) {
      seen.push_back(call);
      distinct_.push_back({like(call.a), like(call.b)});
    }
    order_.push_back(place);
    flops_ += 2.0 * static_cast<double>(call.a.sizes[0] * call.a.sizes[1] * call.b.sizes[1]);
  }
}

void Products::repeat() {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("blt::product", "")
                             .typed<at::Tensor(const at::Tensor&, const at::Tensor&)>();
  for (const size_t place : order_) op.call(distinct_[place].a, distinct_[place].b);
}

double product_flops_per_second(at::Device device, at::ScalarType dtype) {
  if (device.is_cuda()) return CudaClock(dtype).product_flops_per_second();
  constexpr int64_t kSide = 1536;
  const at::Tensor a = at::rand({kSide, kSide}).to(dtype), b = at::rand({kSide, kSide}).to(dtype);
  at::Tensor result = at::empty_like(a);
  std::vector<double> times;
  for (int i = 0; i < 6; ++i) times.push_back(seconds([&] { at::mm_out(result, a, b); }));
  return 2.0 * kSide * kSide * kSide / median({times.begin() + 2, times.end()});
}

}  // namespace blt::bench
