#pragma once
/// A stack of its own that a CUDA thread runs on, and the switch from one to another within an OS thread.

#include <cstddef>
#ifndef __x86_64__
#include <ucontext.h>
#endif

namespace espalier::emulation {

class Fiber {
  public:
    /// The stack that is running: the OS thread's own.
    Fiber();
    /// Starts in `entry`, which never returns, at the first switch to it. Numbers spread the stacks over the cache.
    Fiber(void (*entry)(), unsigned number);
    Fiber(const Fiber&) = delete;
    Fiber& operator=(const Fiber&) = delete;
    ~Fiber();

    /// Leaves `from`, which is running, for `to`; returns when something switches back.
    static void switch_between(Fiber& from, Fiber& to);
    /// The first thing that `entry` does.
    static void arrive();
    /// Whose actions thread sanitizer sees, without a switch of stacks.
    void impersonate() const;

  private:
    std::byte* mapping_ = nullptr;  ///< a guard page, then the stack
    const void* stack_ = nullptr;
    std::size_t stack_bytes_ = 0;
#ifdef __x86_64__
    void* stack_pointer_ = nullptr;
#else
    ucontext_t context_{};
#endif
    void* address_sanitizer_stack_ = nullptr;
    void* thread_sanitizer_fiber_ = nullptr;
};

}  // namespace espalier::emulation
