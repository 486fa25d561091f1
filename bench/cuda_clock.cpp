#include "bench/cuda_clock.h"

#include <ATen/Context.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "bench/timing.h"
#include "blt/ops/arithmetic.h"

namespace blt::bench {
namespace {

constexpr int64_t kCopyBytes = int64_t{1} << 30, kSide = 8192;
constexpr int kRepeats = 7;

c10::Stream stream() { return c10::impl::VirtualGuardImpl(c10::kCUDA).getStream({c10::kCUDA, 0}); }

// Between two events on the stream.
template <class F>
double event_seconds(const F& f) {
  c10::Event start(c10::kCUDA, c10::EventFlag::BACKEND_DEFAULT),
      end(c10::kCUDA, c10::EventFlag::BACKEND_DEFAULT);
  start.record(stream());
  f();
  end.record(stream());
  end.synchronize();
  return start.elapsedTime(end) / 1e3;
}

template <class F>
double median_of_repeats(const F& f) {
  f();  // warm
  std::vector<double> times;
  for (int i = 0; i < kRepeats; ++i) times.push_back(event_seconds(f));
  return median(times);
}

}  // namespace

CudaClock::CudaClock(at::ScalarType dtype) {
  TORCH_CHECK(at::hasCUDA(), "no CUDA device is to be seen: look at nvidia-smi");
  ops::sum_products_in_float32();  // as models have it
  const auto options = at::TensorOptions().device(at::kCUDA);
  from_ = at::randint(256, {kCopyBytes}, options.dtype(at::kByte));
  to_ = at::empty_like(from_);
  // Random: a product of zeros takes less power and runs faster.
  a_ = at::randn({kSide, kSide}, options.dtype(dtype));
  b_ = at::randn({kSide, kSide}, options.dtype(dtype));
  product_ = at::empty_like(a_);
  product_seconds_ = median_of_repeats([&] { occupy(0); });
}

void CudaClock::occupy(double seconds) const {
  at::Tensor out = product_;
  const int times = product_seconds_ > 0 ? 1 + static_cast<int>(std::ceil(seconds / product_seconds_)) : 1;
  for (int i = 0; i < times; ++i) at::mm_out(out, a_, b_);
}

double CudaClock::seconds(int calls, const std::function<void(int)>& f) const {
  const auto all = [&] {
    for (int i = 0; i < calls; ++i) f(i);
  };
  stream().synchronize();
  const double queueing = bench::seconds(all);  // of the host, where it does not wait for the device
  stream().synchronize();
  c10::Event start(c10::kCUDA, c10::EventFlag::BACKEND_DEFAULT),
      end(c10::kCUDA, c10::EventFlag::BACKEND_DEFAULT);
  occupy(std::min(2 * queueing, 0.5));
  start.record(stream());
  all();
  end.record(stream());
  end.synchronize();
  return start.elapsedTime(end) / 1e3 / calls;
}

double CudaClock::copy_bytes_per_second() const {
  at::Tensor to = to_;
  return 2.0 * kCopyBytes / median_of_repeats([&] { to.copy_(from_, /*non_blocking=*/true); });
}

double CudaClock::product_flops_per_second() const {
  return 2.0 * kSide * kSide * kSide / median_of_repeats([&] { occupy(0); });
}

}  // namespace blt::bench
