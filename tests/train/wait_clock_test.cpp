// Waiting for transfers, by the host's clock and by a device's events.
#include "blt/train/wait_clock.h"

#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <thread>

namespace blt {
namespace {

constexpr c10::DeviceType kFake = c10::kFPGA;  // nothing else here uses it

// A device whose stream is where `now_ms` says, and that is there at once.
struct FakeDevice final : c10::impl::DeviceGuardImplInterface {
  static constexpr c10::DeviceType static_type = kFake;
  static inline double now_ms = 0;
  static inline int times_read = 0, events = 0;

  c10::DeviceType type() const override { return kFake; }
  c10::Device exchangeDevice(c10::Device) const override { return getDevice(); }
  c10::Device getDevice() const override { return {kFake, 0}; }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::Stream getStream(c10::Device device) const override {
    return c10::Stream(c10::Stream::DEFAULT, device);
  }
  c10::Stream exchangeStream(c10::Stream stream) const override { return stream; }
  c10::DeviceIndex deviceCount() const noexcept override { return 0; }  // nobody starts threads for it

  void record(void** event, const c10::Stream&, const c10::DeviceIndex,
              const c10::EventFlag flag) const override {
    EXPECT_EQ(flag, c10::EventFlag::BACKEND_DEFAULT) << "an event without a time";
    *event = new double(now_ms);
    ++events;
  }
  void destroyEvent(void* event, const c10::DeviceIndex) const noexcept override {
    delete static_cast<double*>(event);
    --events;
  }
  bool queryEvent(void*) const override { return true; }
  double elapsedTime(void* from, void* until, const c10::DeviceIndex) const override {
    ++times_read;
    return *static_cast<double*>(until) - *static_cast<double*>(from);
  }
};
C10_REGISTER_GUARD_IMPL(FPGA, FakeDevice)

void work(double milliseconds) { FakeDevice::now_ms += milliseconds; }

TEST(WaitClock, AddsUpWhatTheHostWaited) {
  WaitClock clock(c10::kCPU);
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < 2; ++i)
    clock.time(c10::kCPU, [] { std::this_thread::sleep_for(std::chrono::milliseconds(20)); });
  const double waited = clock.take().seconds();
  EXPECT_GE(waited, 0.04);
  EXPECT_LE(waited, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  EXPECT_EQ(clock.take().seconds(), 0);
}

TEST(WaitClock, ReadsADevicesTimesWhenSomebodyAsks) {
  const c10::Device device(kFake, 0);
  WaitClock clock(device);
  work(5);
  clock.time(device, [] { work(30); });
  work(100);
  clock.time(device, [] { work(12); });
  // The host's transfers, and those of another device, wait beside it.
  clock.time(c10::kCPU, [] { work(1000); });
  clock.time(c10::Device(kFake, 1), [] { work(1000); });
  {
    const Waits waits = clock.take();
    EXPECT_EQ(FakeDevice::times_read, 0);
    EXPECT_DOUBLE_EQ(waits.seconds(), 0.042);
    EXPECT_EQ(FakeDevice::events, 4);
  }
  EXPECT_EQ(FakeDevice::events, 0);
  clock.time(device, [] { work(7); });
  EXPECT_DOUBLE_EQ(clock.take().seconds(), 0.007);
}

}  // namespace
}  // namespace blt
