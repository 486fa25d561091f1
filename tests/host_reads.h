// Seeing what waits for a device.
#pragma once

#include <ATen/record_function.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <string_view>

#ifdef BLT_HAS_CUDA
#include <c10/cuda/CUDAFunctions.h>
#endif

namespace blt {

// Counts, while it lives, the operators that wait for a device where there is one: they give a number to the host, or a result whose size
// only the data says. Not those inside LibTorch's fused AdamW: on the CPU it reads each parameter's step, on CUDA it does not.
class HostReads {
 public:
  HostReads() {
    count = 0;
    handle_ = at::addGlobalCallback(at::RecordFunctionCallback(see, leave));
  }
  ~HostReads() { at::removeCallback(handle_); }
  static inline std::atomic<int64_t> count = 0;

 private:
  static std::unique_ptr<at::ObserverContext> see(const at::RecordFunction& function) {
    static const std::set<std::string> kWaiting = {
        "aten::_local_scalar_dense", "aten::is_nonzero", "aten::nonzero",
        "aten::masked_select",       "aten::_unique2",   "aten::equal"};
    if (is_fused(function)) ++inside_fused;
    if (inside_fused == 0 && kWaiting.count(function.name()) != 0) ++count;
    return nullptr;
  }
  static void leave(const at::RecordFunction& function, at::ObserverContext*) {
    if (is_fused(function)) --inside_fused;
  }
  static bool is_fused(const at::RecordFunction& function) {
    return std::string_view(function.name()) == "aten::_fused_adamw_";
  }
  static inline thread_local int inside_fused = 0;
  at::CallbackHandle handle_;
};

#ifdef BLT_HAS_CUDA
// Whatever waits for the device throws while it lives.
class SynchronisationIsAnError {
 public:
  SynchronisationIsAnError() {
    c10::cuda::warning_state().set_sync_debug_mode(c10::cuda::SyncDebugMode::L_ERROR);
  }
  ~SynchronisationIsAnError() {
    c10::cuda::warning_state().set_sync_debug_mode(c10::cuda::SyncDebugMode::L_DISABLED);
  }
};
#endif

}  // namespace blt
