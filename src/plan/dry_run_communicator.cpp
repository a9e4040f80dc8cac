#include "src/plan/dry_run_communicator.h"

#include "src/base/error.h"

#include <algorithm>
#include <cstring>

namespace espalier {

namespace {

TensorView bytes_at(std::byte* data, std::size_t bytes) {
    return {data, DType::u8, 1, bytes};
}

class TimedExchange final : public Exchange {
  public:
    TimedExchange(Clock& clock, double end) : clock_(clock), end_(end) {}
    ~TimedExchange() override { finish(); }
    void finish() override { clock_.wait_until(end_); }

  private:
    Clock& clock_;
    double end_;
};

}  // namespace

DryRunCommunicator::DryRunCommunicator(int rank, int size, NetworkModel network, Clock& clock, Memory memory,
                                       Device* device)
    : rank_(rank), size_(size), network_(network), clock_(clock), memory_(memory), device_(device) {
    require(rank >= 0 && rank < size, "a rank of the dry run's group");
    require((memory == Memory::device) == (device != nullptr), "a device for device memory");
}

void DryRunCommunicator::reach_now() {
    if (device_ != nullptr) device_->synchronize();
}

double DryRunCommunicator::reserve(double seconds) {
    free_at_ = std::max(free_at_, clock_.now()) + seconds;
    return free_at_;
}

void DryRunCommunicator::zero(std::byte* data, std::size_t bytes) {
    if (bytes == 0) return;
    if (memory_ == Memory::host) std::memset(data, 0, bytes);
    if (memory_ == Memory::device) device_->fill_zero(bytes_at(data, bytes));
}

void DryRunCommunicator::copy(const std::byte* from, std::byte* to, std::size_t bytes) {
    if (bytes == 0) return;
    if (memory_ == Memory::host) std::memcpy(to, from, bytes);
    if (memory_ == Memory::device) device_->copy(bytes_at(const_cast<std::byte*>(from), bytes), bytes_at(to, bytes));
}

std::unique_ptr<Exchange> DryRunCommunicator::start_messages(std::span<const Message> sends,
                                                             std::span<const Message> receives) {
    reach_now();
    for (const Message& message : receives) zero(message.data, message.bytes);
    return std::make_unique<TimedExchange>(clock_, reserve(network_.exchange_seconds(rank_, sends, receives)));
}

void DryRunCommunicator::wait_for_all() {
    reach_now();
    clock_.wait_until(reserve(network_.barrier_seconds(static_cast<std::size_t>(size_))));
}

void DryRunCommunicator::broadcast_bytes(std::span<std::byte> data, int root) {
    reach_now();
    if (root != rank_) zero(data.data(), data.size());
    clock_.wait_until(reserve(network_.broadcast_seconds(static_cast<std::size_t>(size_), data.size())));
}

std::unique_ptr<Exchange> DryRunCommunicator::start_all_gather_bytes(std::span<std::byte> data,
                                                                     std::span<const std::size_t> offsets) {
    reach_now();
    const auto me = static_cast<std::size_t>(rank_);
    const std::byte* const own = data.data() + offsets[me];
    const std::size_t own_bytes = offsets[me + 1] - offsets[me];
    for (std::size_t r = 0; r + 1 < offsets.size(); ++r) {
        if (r == me) continue;
        std::byte* const part = data.data() + offsets[r];
        const std::size_t bytes = offsets[r + 1] - offsets[r];
        if (own_bytes == 0) zero(part, bytes);
        for (std::size_t done = 0; own_bytes > 0 && done < bytes; done += own_bytes) {
            copy(own, part + done, std::min(own_bytes, bytes - done));
        }
    }
    const std::size_t bytes = offsets.back() - offsets.front();
    return std::make_unique<TimedExchange>(
        clock_, reserve(network_.all_gather_seconds(static_cast<std::size_t>(size_), bytes)));
}

}  // namespace espalier
