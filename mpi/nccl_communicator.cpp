#include "mpi/nccl_communicator.h"

#include "kernels/cuda/stream.h"
#include "mpi/deadline.h"
#include "src/base/clock.h"
#include "src/base/error.h"

#include <cuda_runtime_api.h>
#include <nccl.h>
#include <sched.h>

#include <cstring>
#include <deque>
#include <exception>
#include <set>
#include <string>
#include <vector>

namespace espalier {

namespace {

using cuda::Event;

class NcclCommunicator final : public Communicator {
  public:
    NcclCommunicator(Communicator& control, Device& device)
        : control_(control), device_(device), compute_(static_cast<cudaStream_t>(device.stream())) {
        connect();
        poll_ = device.add_wait_poll([this] { watch(); });
    }
    ~NcclCommunicator() override {
        device_.remove_wait_poll(poll_);
        // Peers may be anywhere while an exception unwinds: only an abort returns for certain.
        if (std::uncaught_exceptions() > exceptions_at_start_)
            ncclCommAbort(communicator_);
        else
            disconnect();
    }

    int rank() const override { return control_.rank(); }
    int size() const override { return control_.size(); }
    int world_rank(int rank) const override { return control_.world_rank(rank); }

  protected:
    std::unique_ptr<Exchange> start_messages(std::span<const Message> sends,
                                             std::span<const Message> receives) override;
    void wait_for_all() override { control_.barrier(); }
    void broadcast_bytes(std::span<std::byte> data, int root) override {
        if (data.empty()) return;
        begin();
        settle(ncclBroadcast(data.data(), data.data(), data.size(), ncclUint8, root, communicator_, stream_),
               "ncclBroadcast");
        end()->delay(compute_);
    }
    std::unique_ptr<Exchange> start_all_gather_bytes(std::span<std::byte> data,
                                                     std::span<const std::size_t> offsets) override;

  private:
    class Transfer;

    void connect() {
        ncclUniqueId id{};
        if (rank() == 0) check(ncclGetUniqueId(&id), "ncclGetUniqueId");
        control_.broadcast(std::span<char>(id.internal), 0);
        ncclConfig_t configuration = NCCL_CONFIG_INITIALIZER;
        configuration.blocking = 0;
        settle(ncclCommInitRankConfig(&communicator_, size(), id, rank(), &configuration), "ncclCommInitRankConfig");
    }
    void disconnect() noexcept {
        try {
            settle(ncclCommFinalize(communicator_), "ncclCommFinalize");
            ncclCommDestroy(communicator_);
        } catch (const Error&) {
            ncclCommAbort(communicator_);  // a destructor cannot report; the next call to MPI fails in the same way
        }
    }

    /// What follows in NCCL's stream comes after all device operations so far.
    void begin() {
        Event reached;
        reached.record(compute_);
        reached.delay(stream_);
    }
    /// The end of what has been put into NCCL's stream.
    /// `peers`: those it waits for, where not all ranks take part.
    std::shared_ptr<Event> end(const std::set<int>& peers = {}) {
        auto event = std::make_shared<Event>();
        event->record(stream_);
        under_way_.push_back({event, Stopwatch(), peers});
        return event;
    }

    void check(ncclResult_t result, const char* call) const {
        if (result == ncclSuccess || result == ncclInProgress) return;
        throw ResourceError(std::string(call) + " failed: " + ncclGetErrorString(result) + " (" +
                            ncclGetLastError(communicator_) + "); NCCL_DEBUG=INFO tells more");
    }
    /// A call of a non-blocking communicator may still be under way; waits until NCCL has taken it.
    void settle(ncclResult_t result, const char* call) const {
        check(result, call);
        const Stopwatch waiting;
        ncclResult_t state = ncclInProgress;
        for (;;) {
            check(ncclCommGetAsyncError(communicator_, &state), "ncclCommGetAsyncError");
            check(state, call);
            if (state == ncclSuccess) return;
            refuse_longer_than_deadline(waiting, {}, call);
            sched_yield();
        }
    }
    void refuse_longer_than_deadline(const Stopwatch& waiting, const std::set<int>& peers, const char* call) const {
        if (waiting.seconds() < communication_deadline_seconds()) return;
        std::vector<int> silent;
        silent.reserve(peers.size());
        for (const int peer : peers) silent.push_back(world_rank(peer));
        give_up({waiting.seconds(), silent, place(), call});
    }
    /// Runs while the host waits for the GPU: has a peer failed, or been away for too long?
    void watch() {
        while (!under_way_.empty() && under_way_.front().end->has_passed("an NCCL exchange")) under_way_.pop_front();
        if (under_way_.empty()) return;
        ncclResult_t state = ncclSuccess;
        check(ncclCommGetAsyncError(communicator_, &state), "ncclCommGetAsyncError");
        check(state, "an NCCL exchange");
        refuse_longer_than_deadline(under_way_.front().since, under_way_.front().peers, "an NCCL exchange");
    }

    struct UnderWay {
        std::shared_ptr<Event> end;
        Stopwatch since;
        std::set<int> peers;
    };

    Communicator& control_;
    Device& device_;
    cudaStream_t compute_;
    cuda::Stream stream_ = cuda::Stream::of_highest_priority();
    ncclComm_t communicator_ = nullptr;
    std::deque<UnderWay> under_way_;
    int poll_ = 0;
    int exceptions_at_start_ = std::uncaught_exceptions();
};

/// Sends and receives in NCCL's stream. The device's stream waits for them when they are finished; the host never does.
class NcclCommunicator::Transfer final : public Exchange {
  public:
    Transfer(std::shared_ptr<Event> end, cudaStream_t compute) : end_(std::move(end)), compute_(compute) {}
    ~Transfer() override {
        // In order with what follows even when forgotten; a failure to wait shows in the next operation.
        if (end_ != nullptr) {
            try {
                finish();
            } catch (const Error&) {
                return;
            }
        }
    }
    void finish() override {
        if (end_ != nullptr) end_->delay(compute_);
        end_.reset();
    }

  private:
    std::shared_ptr<Event> end_;
    cudaStream_t compute_;
};

std::unique_ptr<Exchange> NcclCommunicator::start_messages(std::span<const Message> sends,
                                                           std::span<const Message> receives) {
    std::set<int> peers;
    begin();
    check(ncclGroupStart(), "ncclGroupStart");
    for (const Message& message : sends) {
        require(message.peer != rank(), "a message to another rank");
        if (message.bytes == 0) continue;
        peers.insert(message.peer);
        check(ncclSend(message.data, message.bytes, ncclUint8, message.peer, communicator_, stream_), "ncclSend");
    }
    for (const Message& message : receives) {
        require(message.peer != rank(), "a message from another rank");
        if (message.bytes == 0) continue;
        peers.insert(message.peer);
        check(ncclRecv(message.data, message.bytes, ncclUint8, message.peer, communicator_, stream_), "ncclRecv");
    }
    settle(ncclGroupEnd(), "ncclGroupEnd");
    return std::make_unique<Transfer>(end(peers), compute_);
}

/// NCCL's ring passes a machine's border once for all of its ranks, which messages would do once for each.
std::unique_ptr<Exchange> NcclCommunicator::start_all_gather_bytes(std::span<std::byte> data,
                                                                   std::span<const std::size_t> offsets) {
    const auto begin_of = [&](std::size_t r) { return data.data() + offsets[r]; };
    const auto bytes_of = [&](std::size_t r) { return offsets[r + 1] - offsets[r]; };
    const auto ranks = static_cast<std::size_t>(size()), me = static_cast<std::size_t>(rank());
    bool equal = true;
    for (std::size_t r = 0; r < ranks; ++r) equal = equal && bytes_of(r) == bytes_of(0);
    begin();
    if (equal && bytes_of(0) > 0) {
        settle(ncclAllGather(begin_of(me), begin_of(0), bytes_of(0), ncclUint8, communicator_, stream_),
               "ncclAllGather");
    } else if (!equal) {
        check(ncclGroupStart(), "ncclGroupStart");
        for (std::size_t r = 0; r < ranks; ++r) {
            if (bytes_of(r) == 0) continue;
            check(ncclBroadcast(begin_of(r), begin_of(r), bytes_of(r), ncclUint8, static_cast<int>(r), communicator_,
                                stream_),
                  "ncclBroadcast");
        }
        settle(ncclGroupEnd(), "ncclGroupEnd");
    }
    return std::make_unique<Transfer>(end(), compute_);
}

}  // namespace

std::unique_ptr<Communicator> nccl::make_communicator(Communicator& control, Device& device) {
    return std::make_unique<NcclCommunicator>(control, device);
}

}  // namespace espalier
