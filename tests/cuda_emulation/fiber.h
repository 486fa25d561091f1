// A function that runs on a stack of its own and can be left in the middle.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#ifndef __x86_64__
#include <ucontext.h>
#endif

namespace blt::emulation {

// Belongs to one thread. A fiber may be left for good where it paused; what lives on its stack is then not destroyed.
class Fiber {
 public:
  explicit Fiber(size_t stack_bytes) : stack_(new char[stack_bytes]), stack_bytes_(stack_bytes) {}
  Fiber(const Fiber&) = delete;

  void start(
      void (*entry)());  // resume() then enters it, from the top of the stack; it may not return, nor throw
  void resume();         // until it pauses
  void pause();          // called on the fiber

 private:
  std::unique_ptr<char[]> stack_;
  size_t stack_bytes_;
#ifdef __x86_64__
  void* own_ = nullptr;  // stack pointers
  void* caller_ = nullptr;
#else
  ucontext_t own_, caller_;
#endif
};

}  // namespace blt::emulation
