#include "fiber.h"

#ifdef __x86_64__

// Keeps the registers that a call must keep on the stack that is left, in *from, and takes up those on the stack `to`. ucontext does the same
// with two system calls, a hundred times slower; tests switch tens of millions of times.
extern "C" void blt_switch_stack(void** from, void* to);
asm(R"(
.text
.type blt_switch_stack, @function
blt_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size blt_switch_stack, .-blt_switch_stack
)");

namespace blt::emulation {

void Fiber::start(void (*entry)()) {
  // As if `entry` had been called: the stack pointer is 8 below a multiple of 16 when it is entered.
  const uintptr_t top = (reinterpret_cast<uintptr_t>(stack_.get()) + stack_bytes_) / 16 * 16 - 16;
  void** place = reinterpret_cast<void**>(top);
  *--place = nullptr;                              // where entry would return to
  *--place = reinterpret_cast<void*>(entry);       // where the switch returns to
  for (int i = 0; i < 6; ++i) *--place = nullptr;  // the registers
  own_ = place;
}

void Fiber::resume() { blt_switch_stack(&caller_, own_); }
void Fiber::pause() { blt_switch_stack(&own_, caller_); }

}  // namespace blt::emulation

#else

namespace blt::emulation {

void Fiber::start(void (*entry)()) {
  getcontext(&own_);
  own_.uc_stack.ss_sp = stack_.get();
  own_.uc_stack.ss_size = stack_bytes_;
  own_.uc_link = nullptr;
  makecontext(&own_, entry, 0);
}

void Fiber::resume() { swapcontext(&caller_, &own_); }
void Fiber::pause() { swapcontext(&own_, &caller_); }

}  // namespace blt::emulation

#endif
