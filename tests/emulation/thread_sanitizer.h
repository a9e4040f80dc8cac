#pragma once
/// What thread sanitizer is told. The scheduler is compiled without it, so that its own bookkeeping, which runs on all
/// fibers, does not pass for accesses of the kernels; CMake says that the rest of the program is compiled with it.

#ifdef ESPALIER_THREAD_SANITIZER
#include <sanitizer/tsan_interface.h>
#endif

namespace espalier::emulation {

#ifdef ESPALIER_THREAD_SANITIZER
inline constexpr bool thread_sanitizer = true;
#else
inline constexpr bool thread_sanitizer = false;
#endif

/// An address that stands for an event: what was done before `signal` happened before what is done after `await`.
class HappensBefore {
  public:
#ifdef ESPALIER_THREAD_SANITIZER
    void signal() {
        __tsan_release(&address_);
    }
    void await() {
        __tsan_acquire(&address_);
    }

  private:
    char address_ = 0;
#else
    void signal() {}
    void await() {}
#endif
};

}  // namespace espalier::emulation
