#include "train/operator_tape.h"

#include <c10/core/impl/LocalDispatchKeySet.h>

namespace blt::testing {
namespace {

// Below autograd, and nobody else's here.
constexpr c10::DispatchKey kTape = c10::DispatchKey::Fake;
OperatorTape* current = nullptr;

struct Current {
  explicit Current(OperatorTape* tape) { current = tape; }
  ~Current() { current = nullptr; }
};

const void* storage_of(const at::Tensor& tensor) { return tensor.storage().unsafeGetStorageImpl(); }

// f(tensor) for the tensors in a value.
template <class F>
void for_each_tensor(const c10::IValue& value, const F& f) {
  if (value.isTensor()) {
    if (value.toTensor().defined()) f(value.toTensor());
  } else if (value.isTensorList()) {
    for (const at::Tensor& tensor : value.toTensorVector()) f(tensor);
  } else if (value.isList()) {
    for (const c10::IValue& item : value.toListRef()) for_each_tensor(item, f);
  }
}

std::vector<at::Tensor> tensors_in(const torch::jit::Stack& values) {
  std::vector<at::Tensor> result;
  for (const c10::IValue& value : values)
    for_each_tensor(value, [&](const at::Tensor& tensor) { result.push_back(tensor); });
  return result;
}

at::Tensor whole_storage(const at::Tensor& tensor) {
  return at::empty({0}, at::TensorOptions(at::kByte))
      .set_(tensor.storage(), 0, {static_cast<int64_t>(tensor.storage().nbytes())}, {1});
}

}  // namespace

void note_on_tape(const c10::OperatorHandle& op, c10::DispatchKeySet keys, torch::jit::Stack* stack) {
  OperatorTape::note(op, keys, stack);
}

TORCH_LIBRARY_IMPL(_, Fake, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&note_on_tape>()); }

void OperatorTape::note(const c10::OperatorHandle& op, c10::DispatchKeySet keys, torch::jit::Stack* stack) {
  const c10::impl::ExcludeDispatchKeyGuard not_again(kTape);  // what operators call is theirs
  const auto& arguments = op.schema().arguments();
  Call call{op, torch::jit::Stack(stack->end() - static_cast<int64_t>(arguments.size()), stack->end()), {}};
  for (size_t i = 0; i < arguments.size(); ++i)
    if (arguments[i].alias_info() != nullptr && arguments[i].alias_info()->isWrite())
      for_each_tensor(call.arguments[i],
                      [](const at::Tensor& tensor) { current->keep_before_change(tensor); });
  std::set<const void*> given;
  for (const at::Tensor& tensor : tensors_in(call.arguments)) given.insert(storage_of(tensor));
  op.redispatchBoxed(keys & c10::DispatchKeySet(c10::DispatchKeySet::FULL_AFTER, kTape), stack);
  call.results.assign(stack->end() - static_cast<int64_t>(op.schema().returns().size()), stack->end());
  for (const at::Tensor& tensor : tensors_in(call.results))
    if (given.count(storage_of(tensor)) == 0) current->made_.insert(storage_of(tensor));
  current->calls_.push_back(std::move(call));
}

OperatorTape::OperatorTape(const std::function<void()>& work) {
  {
    const Current is_this(this);
    const c10::impl::IncludeDispatchKeyGuard noting(kTape);
    work();
  }
  const at::NoGradGuard no_grad;
  for (auto& [storage, content] : before_) storage.copy_(content);
  before_.clear();
}

void OperatorTape::keep_before_change(const at::Tensor& tensor) {
  if (made_.count(storage_of(tensor)) != 0) return;
  for (const auto& kept : before_)
    if (storage_of(kept.first) == storage_of(tensor)) return;
  const at::Tensor storage = whole_storage(tensor);
  before_.emplace_back(storage, storage.clone());
}

void OperatorTape::replay() {
  const at::AutoDispatchBelowADInplaceOrView below;
  for (const Call& call : calls_) {
    torch::jit::Stack stack = call.arguments;
    call.op.callBoxed(&stack);
    const std::vector<at::Tensor> now = tensors_in(stack), then = tensors_in(call.results);
    TORCH_CHECK(now.size() == then.size(), call.op.schema().name(), " gives another number of tensors");
    for (size_t i = 0; i < now.size(); ++i) {
      TORCH_CHECK(now[i].sizes() == then[i].sizes() && now[i].scalar_type() == then[i].scalar_type(),
                  call.op.schema().name(), " gives ", now[i].sizes(), ", and gave ", then[i].sizes(),
                  ": its size is the data's");
      if (now[i].numel() > 0 && now[i].data_ptr() != then[i].data_ptr()) then[i].copy_(now[i]);
    }
  }
}

}  // namespace blt::testing
