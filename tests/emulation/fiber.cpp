#include "tests/emulation/fiber.h"

#include "tests/emulation/failure.h"
#include "tests/emulation/thread_sanitizer.h"

#include <sys/mman.h>

#include <cstdint>
#ifdef __SANITIZE_ADDRESS__
#include <pthread.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace espalier::emulation {

namespace {

constexpr std::size_t page_bytes = 4096;
constexpr std::size_t mapped_stack_bytes = std::size_t{256} << 10;
/// Stacks that begin at the same offset in their pages would all use the same few sets of the cache.
constexpr std::size_t colour_bytes = 320, colours = 32;

}  // namespace

#ifdef __x86_64__
// Saves the registers that a function must preserve and the stack pointer, and loads those of the other stack.
extern "C" void espalier_switch_stacks(void** saved_stack_pointer, void* loaded_stack_pointer);
asm(R"(
    .text
    .globl espalier_switch_stacks
    .type espalier_switch_stacks, @function
espalier_switch_stacks:
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
    .size espalier_switch_stacks, . - espalier_switch_stacks
)");
#endif

Fiber::Fiber() {
#ifdef __SANITIZE_ADDRESS__
    pthread_attr_t attributes;
    void* lowest = nullptr;
    if (pthread_getattr_np(pthread_self(), &attributes) != 0 ||
        pthread_attr_getstack(&attributes, &lowest, &stack_bytes_) != 0) {
        fail("the stack of the running thread is unknown");
    }
    pthread_attr_destroy(&attributes);
    stack_ = lowest;
#endif
#ifdef ESPALIER_THREAD_SANITIZER
    thread_sanitizer_fiber_ = __tsan_get_current_fiber();
#endif
}

Fiber::Fiber(void (*entry)(), unsigned number) {
    void* const mapping = mmap(nullptr, page_bytes + mapped_stack_bytes, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping == MAP_FAILED || mprotect(mapping, page_bytes, PROT_NONE) != 0) fail("no memory for a fiber's stack");
    mapping_ = static_cast<std::byte*>(mapping);
    std::byte* const stack = mapping_ + page_bytes;
    stack_ = stack;
    stack_bytes_ = mapped_stack_bytes - number % colours * colour_bytes;
#ifdef __x86_64__
    // What the switch pops: six registers and the address to return to; then `entry` sees an aligned stack with a
    // return address of 0 on it.
    constexpr std::size_t registers = 6, words = registers + 2;
    auto** const top = reinterpret_cast<void**>(stack + stack_bytes_);
    for (std::size_t i = 1; i <= words; ++i) *(top - i) = nullptr;
    *(top - 2) = reinterpret_cast<void*>(entry);
    stack_pointer_ = top - words;
#else
    getcontext(&context_);
    context_.uc_stack.ss_sp = stack;
    context_.uc_stack.ss_size = stack_bytes_;
    context_.uc_link = nullptr;
    makecontext(&context_, entry, 0);
#endif
#ifdef ESPALIER_THREAD_SANITIZER
    thread_sanitizer_fiber_ = __tsan_create_fiber(0);
#endif
}

Fiber::~Fiber() {
    if (mapping_ == nullptr) return;
#ifdef ESPALIER_THREAD_SANITIZER
    __tsan_destroy_fiber(thread_sanitizer_fiber_);
#endif
    munmap(mapping_, page_bytes + mapped_stack_bytes);
}

void Fiber::switch_between(Fiber& from, Fiber& to) {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(&from.address_sanitizer_stack_, to.stack_, to.stack_bytes_);
#endif
    to.impersonate();
#ifdef __x86_64__
    espalier_switch_stacks(&from.stack_pointer_, to.stack_pointer_);
#else
    swapcontext(&from.context_, &to.context_);
#endif
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(from.address_sanitizer_stack_, nullptr, nullptr);
#endif
}

void Fiber::arrive() {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
}

void Fiber::impersonate() const {
#ifdef ESPALIER_THREAD_SANITIZER
    constexpr unsigned without_synchronisation = 1;
    __tsan_switch_to_fiber(thread_sanitizer_fiber_, without_synchronisation);
#endif
}

}  // namespace espalier::emulation
