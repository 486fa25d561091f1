#include "train/step_memory.h"

#include <ATen/record_function.h>
#include <c10/core/Allocator.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <array>
#include <memory>
#include <mutex>
#include <optional>
#include <string_view>

#include "blt/model/ngram_embedding.h"

namespace blt {
namespace {

// Counts the bytes of tensors on the meta device, of the whole process. It outlives every tensor.
class MetaMemory : public c10::Allocator {
 public:
  static MetaMemory& instance() {
    static auto* const memory = [] {
      auto* made = new MetaMemory;
      c10::SetAllocator(c10::kMeta, made);
      return made;
    }();
    return *memory;
  }

  struct Count {
    int64_t live = 0, peak = 0;
    int64_t gradients = 0, gradients_at_peak = 0;
  };
  // Counts from 0; what is freed later counts too, so live may be negative.
  void restart() {
    const std::lock_guard lock(mutex_);
    count_ = {};
  }
  Count count() {
    const std::lock_guard lock(mutex_);
    return count_;
  }
  // So many of the live bytes are gradients, from here on.
  void add_gradient(int64_t bytes) {
    const std::lock_guard lock(mutex_);
    count_.gradients += bytes;
  }

  // There for a moment besides what is live.
  void add_for_a_moment(int64_t bytes) {
    const std::lock_guard lock(mutex_);
    raise_peak(count_.live + bytes);
  }

  c10::DataPtr allocate(size_t size) override {
    add(static_cast<int64_t>(size));
    return {nullptr, new size_t(size), free, c10::Device(c10::kMeta)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void*, const void*, size_t) const override {}

 private:
  static void free(void* context) {
    const std::unique_ptr<size_t> size(static_cast<size_t*>(context));
    instance().add(-static_cast<int64_t>(*size));
  }
  void add(int64_t bytes) {
    const std::lock_guard lock(mutex_);
    count_.live += bytes;
    raise_peak(count_.live);
  }
  void raise_peak(int64_t bytes) {
    if (bytes <= count_.peak) return;
    count_.peak = bytes;
    count_.gradients_at_peak = count_.gradients;
  }

  std::mutex mutex_;
  Count count_;
};

// A gradient is complete: it is counted as one, or leaves.
class GradientHook : public torch::autograd::PostAccumulateGradHook {
 public:
  explicit GradientHook(const bool& leaves) : leaves_(leaves) {}
  void operator()(const torch::autograd::Variable& parameter) override {
    if (!parameter.grad().defined()) return;  // of a table: it is rows
    const auto bytes = static_cast<int64_t>(parameter.grad().nbytes());
    if (leaves_) {
      parameter.mutable_grad() = at::Tensor();
      if (counted_) MetaMemory::instance().add_gradient(-bytes);
    } else if (!counted_) {
      MetaMemory::instance().add_gradient(bytes);
    }
    counted_ = !leaves_;
  }

 private:
  const bool& leaves_;
  bool counted_ = false;
};

// While one lives, this thread's operators hold inside themselves what those of the CPU do, which compute in float32: of 16-bit tensors, copies of
// what they read and of what they make.
class WidenedCopies {
 public:
  WidenedCopies()
      : handle_(at::addThreadLocalCallback(at::RecordFunctionCallback(begin, end)
                                               .needsInputs(true)
                                               .needsOutputs(true)
                                               .scopes({at::RecordScope::FUNCTION}))) {}
  ~WidenedCopies() { at::removeCallback(handle_); }
  WidenedCopies(const WidenedCopies&) = delete;
  WidenedCopies& operator=(const WidenedCopies&) = delete;

 private:
  struct OfInputs : at::ObserverContext {
    int64_t bytes = 0;
  };

  // Products leave 16-bit numbers to LibTorch, and rows of tables are gathered as they are.
  static bool widens(std::string_view name) {
    constexpr std::array<std::string_view, 5> kOthers = {
        "blt::linear", "blt::product", "blt::ngram_embedding", "blt::touched_rows", "blt::merge_rows"};
    return name.starts_with("blt::") && std::find(kOthers.begin(), kOthers.end(), name) == kOthers.end();
  }
  template <class Values>
  static int64_t bytes_of(const Values& values) {
    int64_t bytes = 0;
    for (const c10::IValue& value : values)
      if (value.isTensor() && value.toTensor().defined() &&
          at::isReducedFloatingType(value.toTensor().scalar_type()))
        bytes += 4 * value.toTensor().numel();
    return bytes;
  }
  static std::unique_ptr<at::ObserverContext> begin(const at::RecordFunction& function) {
    if (!widens(function.name())) return nullptr;
    auto context = std::make_unique<OfInputs>();
    context->bytes = bytes_of(function.inputs());
    return context;
  }
  static void end(const at::RecordFunction& function, at::ObserverContext* context) {
    if (context == nullptr) return;
    const int64_t copies = static_cast<OfInputs*>(context)->bytes + bytes_of(function.outputs());
    MetaMemory::instance().add_for_a_moment(copies);
  }

  at::CallbackHandle handle_;
};

}  // namespace

StepMemory measure_step(torch::nn::Module& module,
                        const std::function<at::Tensor(const Batch&, const PartDone&)>& loss,
                        const Batch& batch, int64_t micro_batches, bool gradients_leave, at::Device device) {
  std::optional<WidenedCopies> copies;
  if (device.is_cpu()) copies.emplace();
  MetaMemory& memory = MetaMemory::instance();
  const Batch shapes = batch.to(c10::kMeta);
  bool leave = false;
  std::vector<at::Tensor> parameters;
  for (const at::Tensor& parameter : module.parameters())
    if (parameter.requires_grad()) parameters.push_back(parameter);
  for (const at::Tensor& parameter : parameters)
    torch::autograd::impl::set_post_acc_grad_hooks(parameter, std::make_unique<GradientHook>(leave));

  StepMemory result;
  memory.restart();
  for (int64_t i = 0; i < micro_batches; ++i) {
    leave = gradients_leave && i + 1 == micro_batches;
    int64_t before = memory.count().live;
    const PartDone done = [&](const std::string& part) {
      const int64_t now = memory.count().live;
      if (i == 0) result.kept.emplace_back(part, now - before);
      before = now;
    };
    loss(shapes, done).backward();
  }
  const MetaMemory::Count count = memory.count();
  result.peak = count.peak;
  result.gradients = count.gradients_at_peak;

  for (const at::Tensor& parameter : parameters) {
    torch::autograd::impl::set_post_acc_grad_hooks(parameter, nullptr);
    parameter.mutable_grad() = at::Tensor();
  }
  for (const auto& child : module.modules())
    if (auto* embedding = child->as<NgramEmbeddingImpl>()) embedding->row_gradients.clear();
  return result;
}

}  // namespace blt
