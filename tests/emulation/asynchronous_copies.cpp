#include "tests/emulation/asynchronous_copies.h"

#include "tests/emulation/scheduler.h"

#include <algorithm>
#include <cstring>

namespace espalier::emulation {

namespace {

void copy(void* to, const void* from, std::size_t bytes) {
    if (from != nullptr)
        std::memcpy(to, from, bytes);
    else
        std::memset(to, 0, bytes);
}

}  // namespace

void AsynchronousCopies::start(void* to, const void* from, std::size_t bytes) {
    if (settings().lazy_streams)
        under_way_.push_back({to, from, bytes, committed_});
    else
        copy(to, from, bytes);
}

void AsynchronousCopies::wait(unsigned left) {
    const auto last = std::find_if(under_way_.begin(), under_way_.end(),
                                   [&](const Copy& started) { return started.group + left >= committed_; });
    std::for_each(under_way_.begin(), last, [](const Copy& started) { copy(started.to, started.from, started.bytes); });
    under_way_.erase(under_way_.begin(), last);
}

void AsynchronousCopies::reset() {
    under_way_.clear();
    committed_ = 0;
}

void copy_asynchronously(void* to, const void* from, std::size_t bytes) {
    Scheduler::running->copies_of_thread().start(to, from, bytes);
}

void commit_copies() {
    Scheduler::running->copies_of_thread().commit();
}

void wait_for_copies(unsigned left) {
    Scheduler::running->copies_of_thread().wait(left);
}

}  // namespace espalier::emulation
