#include "data/to_device.h"

#include <ATen/core/Tensor.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <utility>

#include "data/batch_tensors.h"

namespace blt {

Batch BatchOnItsWay::arrive() && {
  if (copied) {
    const c10::Stream computing = copied->hold_current_stream();
    // The memory is the copies' stream's: given back there, it would take the next batch while steps that read this one are still to come.
    for_each_tensor(batch, [&](at::Tensor& tensor) {
      if (tensor.defined()) tensor.record_stream(computing);
    });
  }
  return std::move(batch);
}

ToDevice::ToDevice(std::unique_ptr<Stage<Batch>> input, c10::Device device)
    : input_(std::move(input)), device_(device) {
  if (!device.is_cpu()) copies_ = c10::impl::VirtualGuardImpl(device.type()).getStreamFromGlobalPool(device);
}

std::optional<BatchOnItsWay> ToDevice::next() {
  std::optional<Batch> batch = input_->next();
  if (!batch) return std::nullopt;
  if (!copies_) return BatchOnItsWay{.batch = std::move(*batch)};
  // LibTorch keeps pinned memory until the copies that read it are done.
  for_each_tensor(*batch, [](at::Tensor& tensor) {
    if (tensor.defined()) tensor = tensor.pin_memory();
  });
  const c10::StreamGuard on_stream(*copies_);
  Batch there = batch->to(device_);
  return BatchOnItsWay{.batch = std::move(there), .copied = DeviceMark(device_)};
}

}  // namespace blt
