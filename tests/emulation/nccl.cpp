// NCCL, as far as it is used: non-blocking communicators with one process a rank, groups of sends and receives, and
// broadcasts, which run in streams.
#include "tests/emulation/execution.h"
#include "tests/emulation/gpu_memory.h"
#include "tests/emulation/mpi_transport.h"
#include "tests/emulation/nccl_fault.h"
#include "tests/emulation/nccl_members.h"
#include "tests/emulation/stream.h"

#include <nccl.h>

#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

using namespace espalier::emulation;

namespace {

/// Outlives the handle while its work stands in a stream.
struct Communicator {
    Communicator(const ncclUniqueId& id, int its_rank, int its_size)
        : members(id, its_rank, its_size), rank(its_rank), size(its_size) {}

    NcclMembers members;
    int rank, size;
    ncclResult_t failure = ncclSuccess;
    std::string sentence;
    bool just_called = true;  ///< a call is under way at least until the caller asks
    bool finalizing = false, aborted = false;
    int exchanges = 0;  ///< not over

    ncclResult_t fail(ncclResult_t result, const std::string& what) {
        failure = result;
        sentence = what;
        return result;
    }
};

}  // namespace

/// What an ncclComm_t points to.
struct ncclComm {
    std::shared_ptr<Communicator> communicator;
};

namespace {

struct Message {
    bool is_receive;
    int peer;
    std::byte* device;
    std::size_t bytes;
};

/// Messages that are started together, as the work of a stream. Device memory is touched when it starts and when it
/// ends; between, the messages are MPI's.
class GroupOfMessages {
  public:
    GroupOfMessages(std::shared_ptr<Communicator> communicator, std::vector<Message> messages)
        : communicator_(std::move(communicator)), wanted_(std::move(messages)) {
        ++communicator_->exchanges;
    }

    bool advance() {
        Communicator& c = *communicator_;
        if (c.aborted) return finish();
        if (c.failure != ncclSuccess || !c.members.are_known()) return false;
        if (!has_begun_) begin();
        if (is_silent_ || c.failure != ncclSuccess || !messages_.have_arrived()) return false;
        const DeviceAccess access;
        for (const auto& [index, device] : receives_) {
            const auto bytes = messages_.received(index);
            std::memcpy(device, bytes.data(), bytes.size());
        }
        return finish();
    }

  private:
    void begin() {
        has_begun_ = true;
        is_silent_ = fault_of("silence") != ncclSuccess;
        if (is_silent_) return;
        if (fault_of("exchange") != ncclSuccess) {
            communicator_->fail(ncclRemoteError, "an exchange failed on purpose");
            return;
        }
        const NcclMembers& members = communicator_->members;
        const DeviceAccess access;
        for (const Message& message : wanted_) {
            const int peer = members.world_rank_of(message.peer);
            if (message.is_receive) {
                receives_.emplace_back(messages_.receive(peer, members.data_tag(), message.bytes), message.device);
            } else {
                messages_.send(peer, members.data_tag(), {message.device, message.bytes});
            }
        }
    }
    bool finish() {
        --communicator_->exchanges;
        return true;
    }

    std::shared_ptr<Communicator> communicator_;
    std::vector<Message> wanted_;
    Messages messages_;
    std::vector<std::pair<std::size_t, std::byte*>> receives_;
    bool has_begun_ = false, is_silent_ = false;
};

/// Between ncclGroupStart and ncclGroupEnd; the messages of one communicator in one stream are one piece of work.
struct Group {
    struct Part {
        std::shared_ptr<Communicator> communicator;
        cudaStream_t stream;
        std::vector<Message> messages;
    };
    int depth = 0;
    std::vector<Part> parts;
};
thread_local Group group;

void launch_group() {
    for (Group::Part& part : std::exchange(group.parts, {})) {
        part.communicator->just_called = true;
        auto messages = std::make_shared<GroupOfMessages>(part.communicator, std::move(part.messages));
        enqueue_work(
            part.stream, [messages] { return messages->advance(); }, true);
    }
}

std::size_t bytes_of(ncclDataType_t type) {
    switch (type) {
        case ncclInt8:
        case ncclUint8:
            return 1;
        case ncclFloat16:
        case ncclBfloat16:
            return 2;
        case ncclInt64:
        case ncclUint64:
        case ncclFloat64:
            return 8;
        default:
            return 4;
    }
}

/// Success, or why a call cannot be taken.
ncclResult_t check_call(const char* call, ncclComm_t handle) {
    if (handle == nullptr) return ncclInvalidArgument;
    Communicator& c = *handle->communicator;
    if (c.failure != ncclSuccess) return c.failure;
    if (c.just_called || !c.members.are_known()) {
        return c.fail(ncclInvalidUsage, std::string(call) +
                                            " while an earlier call is under way: ask for "
                                            "ncclCommGetAsyncError first");
    }
    if (const ncclResult_t fault = fault_of(call); fault != ncclSuccess) {
        return c.fail(fault, std::string(call) + " failed on purpose");
    }
    return ncclSuccess;
}

/// Messages of one call; on their way at once, or with the group's others.
ncclResult_t add_messages(const char* call, ncclComm_t handle, cudaStream_t stream,
                          const std::vector<Message>& messages) {
    const auto& communicator = handle->communicator;
    if (!stream_exists(stream)) return communicator->fail(ncclInvalidArgument, std::string(call) + ": no such stream");
    if (group.parts.empty() || group.parts.back().communicator != communicator || group.parts.back().stream != stream) {
        group.parts.push_back({communicator, stream, {}});
    }
    std::vector<Message>& of_part = group.parts.back().messages;
    of_part.insert(of_part.end(), messages.begin(), messages.end());
    if (group.depth == 0) launch_group();
    return ncclInProgress;
}

ncclResult_t add_message(const char* call, ncclComm_t handle, cudaStream_t stream, const Message& message) {
    if (const ncclResult_t status = check_call(call, handle); status != ncclSuccess) return status;
    if (message.peer < 0 || message.peer >= handle->communicator->size) {
        return handle->communicator->fail(ncclInvalidArgument, std::string(call) + ": no such peer");
    }
    return add_messages(call, handle, stream, {message});
}

}  // namespace

extern "C" {

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
    if (const ncclResult_t fault = fault_of("ncclGetUniqueId"); fault != ncclSuccess) return fault;
    *id = make_unique_id();
    return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* handle, int size, ncclUniqueId id, int rank, ncclConfig_t* config) {
    if (config == nullptr || config->blocking != 0 || rank < 0 || rank >= size) return ncclInvalidArgument;
    *handle = new ncclComm{std::make_shared<Communicator>(id, rank, size)};
    if (const ncclResult_t fault = fault_of("ncclCommInitRankConfig"); fault != ncclSuccess) {
        return (*handle)->communicator->fail(fault, "ncclCommInitRankConfig failed on purpose");
    }
    return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t handle, ncclResult_t* state) {
    if (handle == nullptr) return ncclInvalidArgument;
    Communicator& c = *handle->communicator;
    drive_streams();
    const bool under_way =
        std::exchange(c.just_called, false) || !c.members.are_known() || (c.finalizing && c.exchanges > 0);
    *state = c.failure != ncclSuccess ? c.failure : under_way ? ncclInProgress : ncclSuccess;
    return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t handle) {
    if (const ncclResult_t status = check_call("ncclCommFinalize", handle); status != ncclSuccess) return status;
    handle->communicator->finalizing = true;
    handle->communicator->just_called = true;
    return ncclInProgress;
}

ncclResult_t ncclCommDestroy(ncclComm_t handle) {
    delete handle;
    return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t handle) {
    if (handle == nullptr) return ncclInvalidArgument;
    handle->communicator->aborted = true;
    drive_streams();
    delete handle;
    return ncclSuccess;
}

const char* ncclGetErrorString(ncclResult_t result) {
    switch (result) {
        case ncclSuccess:
            return "no error";
        case ncclInProgress:
            return "NCCL operation in progress";
        case ncclSystemError:
            return "unhandled system error";
        case ncclRemoteError:
            return "remote process exited or there was a network error";
        case ncclInvalidArgument:
            return "invalid argument";
        case ncclInvalidUsage:
            return "invalid usage";
        default:
            return "internal error";
    }
}

const char* ncclGetLastError(ncclComm_t handle) {
    return handle == nullptr ? "" : handle->communicator->sentence.c_str();
}

ncclResult_t ncclGroupStart() {
    if (const ncclResult_t fault = fault_of("ncclGroupStart"); fault != ncclSuccess) return fault;
    ++group.depth;
    return ncclSuccess;
}

ncclResult_t ncclGroupEnd() {
    if (group.depth == 0) return ncclInvalidUsage;
    if (--group.depth > 0) return ncclSuccess;
    if (const ncclResult_t fault = fault_of("ncclGroupEnd"); fault != ncclSuccess) {
        group.parts.clear();
        return fault;
    }
    if (group.parts.empty()) return ncclSuccess;
    launch_group();
    return ncclInProgress;
}

ncclResult_t ncclSend(const void* from, std::size_t count, ncclDataType_t type, int peer, ncclComm_t handle,
                      cudaStream_t stream) {
    auto* const device = static_cast<std::byte*>(const_cast<void*>(from));
    return add_message("ncclSend", handle, stream, {false, peer, device, count * bytes_of(type)});
}

ncclResult_t ncclRecv(void* to, std::size_t count, ncclDataType_t type, int peer, ncclComm_t handle,
                      cudaStream_t stream) {
    return add_message("ncclRecv", handle, stream, {true, peer, static_cast<std::byte*>(to), count * bytes_of(type)});
}

/// In place; the root sends to one after the other.
ncclResult_t ncclBroadcast(const void* from, void* to, std::size_t count, ncclDataType_t type, int root,
                           ncclComm_t handle, cudaStream_t stream) {
    if (const ncclResult_t status = check_call("ncclBroadcast", handle); status != ncclSuccess) return status;
    Communicator& c = *handle->communicator;
    if (root < 0 || root >= c.size || from != to) {
        return c.fail(ncclInvalidArgument, "ncclBroadcast is emulated in place, from a rank that exists");
    }
    std::vector<Message> messages;
    auto* const device = static_cast<std::byte*>(to);
    const std::size_t bytes = count * bytes_of(type);
    if (c.rank != root) {
        messages.push_back({true, root, device, bytes});
    } else {
        for (int peer = 0; peer < c.size; ++peer) {
            if (peer != root) messages.push_back({false, peer, device, bytes});
        }
    }
    return add_messages("ncclBroadcast", handle, stream, messages);
}

/// In place; from every rank to every other.
ncclResult_t ncclAllGather(const void* from, void* to, std::size_t count, ncclDataType_t type, ncclComm_t handle,
                           cudaStream_t stream) {
    if (const ncclResult_t status = check_call("ncclAllGather", handle); status != ncclSuccess) return status;
    Communicator& c = *handle->communicator;
    const std::size_t bytes = count * bytes_of(type);
    auto* const device = static_cast<std::byte*>(to);
    const auto part = [&](int rank) { return device + static_cast<std::size_t>(rank) * bytes; };
    if (from != part(c.rank)) return c.fail(ncclInvalidArgument, "ncclAllGather is emulated in place");
    std::vector<Message> messages;
    for (int peer = 0; peer < c.size; ++peer) {
        if (peer == c.rank) continue;
        messages.push_back({false, peer, part(c.rank), bytes});
        messages.push_back({true, peer, part(peer), bytes});
    }
    return add_messages("ncclAllGather", handle, stream, messages);
}

}  // extern "C"
