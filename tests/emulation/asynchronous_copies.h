#pragma once
/// A thread's copies from global to shared memory that it does not wait for at once (cp.async). With eager streams they
/// are done at once, with lazy ones when they are waited for: the earliest and the latest that a GPU may.

#include <cstddef>
#include <vector>

namespace espalier::emulation {

class AsynchronousCopies {
  public:
    /// No source: zeros.
    void start(void* to, const void* from, std::size_t bytes);
    /// Ends a group of copies.
    void commit() { ++committed_; }
    /// Returns when at most the last `left` groups are under way.
    void wait(unsigned left);
    /// Of a thread that begins.
    void reset();

  private:
    struct Copy {
        void* to;
        const void* from;
        std::size_t bytes;
        unsigned group;
    };
    std::vector<Copy> under_way_;
    unsigned committed_ = 0;
};

}  // namespace espalier::emulation
