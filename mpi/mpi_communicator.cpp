#include "mpi/mpi_communicator.h"

#include "mpi/deadline.h"
#include "src/base/clock.h"
#include "src/base/error.h"

#include <sched.h>

#include <algorithm>
#include <array>
#include <exception>
#include <set>
#include <string>

namespace espalier {

namespace {

/// MPI 3 counts are int: larger messages go in pieces of this size.
constexpr std::size_t piece_bytes = std::size_t{1} << 30;
constexpr int exchange_tag = 1;

class MpiExchange final : public Exchange {
  public:
    /// Messages with `peers`.
    MpiExchange(const MpiCommunicator& communicator, std::vector<MPI_Request> requests, std::vector<int> peers)
        : communicator_(communicator), requests_(std::move(requests)), peers_(std::move(peers)) {}
    /// A collective, whose arrays MPI reads until it is done.
    MpiExchange(const MpiCommunicator& communicator, MPI_Request request, std::vector<int> counts,
                std::vector<int> displacements)
        : communicator_(communicator),
          requests_({request}),
          counts_(std::move(counts)),
          displacements_(std::move(displacements)) {}
    /// An exchange forgotten while an exception unwinds is left alone: its peers may never answer, and all ranks are
    /// about to be aborted.
    ~MpiExchange() override {
        if (requests_.empty() || std::uncaught_exceptions() > exceptions_at_start_) return;
        try {
            finish();
        } catch (const Error&) {
            return;  // a destructor cannot report; the next call to MPI fails in the same way
        }
    }
    void finish() override { communicator_.wait_all(requests_, peers_); }

  private:
    const MpiCommunicator& communicator_;
    std::vector<MPI_Request> requests_;
    std::vector<int> peers_, counts_, displacements_;
    int exceptions_at_start_ = std::uncaught_exceptions();
};

}  // namespace

void check_mpi(int code, const char* call) {
    if (code == MPI_SUCCESS) return;
    std::array<char, MPI_MAX_ERROR_STRING> text{};
    int length = 0;
    MPI_Error_string(code, text.data(), &length);
    throw ResourceError(std::string(call) + " failed: " + std::string(text.data(), static_cast<std::size_t>(length)));
}

MpiCommunicator::MpiCommunicator(MPI_Comm communicator, bool owned) : communicator_(communicator), owned_(owned) {
    check_mpi(MPI_Comm_set_errhandler(communicator_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    check_mpi(MPI_Comm_rank(communicator_, &rank_), "MPI_Comm_rank");
    check_mpi(MPI_Comm_size(communicator_, &size_), "MPI_Comm_size");
}

MpiCommunicator::~MpiCommunicator() {
    // Collective: not while this rank fails, when the others are elsewhere.
    if (owned_ && std::uncaught_exceptions() == 0) MPI_Comm_free(&communicator_);
}

int MpiCommunicator::world_rank(int rank) const {
    MPI_Group mine = MPI_GROUP_NULL, world = MPI_GROUP_NULL;
    int translated = rank;
    check_mpi(MPI_Comm_group(communicator_, &mine), "MPI_Comm_group");
    check_mpi(MPI_Comm_group(MPI_COMM_WORLD, &world), "MPI_Comm_group");
    check_mpi(MPI_Group_translate_ranks(mine, 1, &rank, world, &translated), "MPI_Group_translate_ranks");
    MPI_Group_free(&mine);
    MPI_Group_free(&world);
    return translated;
}

// Polls, so that oversubscribed ranks leave the core to those that compute.
void MpiCommunicator::wait_all(std::vector<MPI_Request>& requests, std::span<const int> peers) const {
    const Stopwatch waiting;
    int done = 0;
    for (int polls = 0; done == 0; ++polls) {
        check_mpi(MPI_Testall(static_cast<int>(requests.size()), requests.data(), &done, MPI_STATUSES_IGNORE),
                  "MPI_Testall");
        if (done != 0) break;
        if (polls > 64) sched_yield();
        if (polls % 4096 == 4095 && waiting.seconds() > communication_deadline_seconds()) {
            give_up({waiting.seconds(), silent_peers(requests, peers), place(), ""});
        }
    }
    requests.clear();
}

std::vector<int> MpiCommunicator::silent_peers(std::span<const MPI_Request> requests,
                                               std::span<const int> peers) const {
    std::set<int> silent;
    for (std::size_t i = 0; i < peers.size(); ++i) {
        int done = 0;
        check_mpi(MPI_Request_get_status(requests[i], &done, MPI_STATUS_IGNORE), "MPI_Request_get_status");
        if (done == 0) silent.insert(world_rank(peers[i]));
    }
    return {silent.begin(), silent.end()};
}

std::unique_ptr<Exchange> MpiCommunicator::start_messages(std::span<const Message> sends,
                                                          std::span<const Message> receives) {
    std::vector<MPI_Request> requests;
    std::vector<int> peers;
    const auto start = [&](std::span<const Message> messages, bool receive) {
        for (const Message& message : messages) {
            require(message.peer != rank_, "a message to another rank");
            for (std::size_t offset = 0; offset < message.bytes; offset += piece_bytes) {
                const int count = static_cast<int>(std::min(piece_bytes, message.bytes - offset));
                std::byte* const data = message.data + offset;
                requests.emplace_back();
                peers.push_back(message.peer);
                check_mpi(
                    receive
                        ? MPI_Irecv(data, count, MPI_BYTE, message.peer, exchange_tag, communicator_, &requests.back())
                        : MPI_Isend(data, count, MPI_BYTE, message.peer, exchange_tag, communicator_, &requests.back()),
                    receive ? "MPI_Irecv" : "MPI_Isend");
            }
        }
    };
    start(receives, true);
    start(sends, false);
    return std::make_unique<MpiExchange>(*this, std::move(requests), std::move(peers));
}

void MpiCommunicator::wait_for_all() {
    std::vector<MPI_Request> request(1);
    check_mpi(MPI_Ibarrier(communicator_, request.data()), "MPI_Ibarrier");
    wait_all(request, {});
}

void MpiCommunicator::broadcast_bytes(std::span<std::byte> data, int root) {
    if (size_ == 1) return;
    for (std::size_t offset = 0; offset < data.size(); offset += piece_bytes) {
        const int count = static_cast<int>(std::min(piece_bytes, data.size() - offset));
        std::vector<MPI_Request> request(1);
        check_mpi(MPI_Ibcast(data.data() + offset, count, MPI_BYTE, root, communicator_, request.data()), "MPI_Ibcast");
        wait_all(request, {});
    }
}

std::unique_ptr<Exchange> MpiCommunicator::start_all_gather_bytes(std::span<std::byte> data,
                                                                  std::span<const std::size_t> offsets) {
    if (size_ == 1 || offsets.back() > piece_bytes) return start_all_to_all(data, offsets);
    std::vector<int> counts(static_cast<std::size_t>(size_)), displacements(static_cast<std::size_t>(size_));
    for (std::size_t r = 0; r < counts.size(); ++r) {
        counts[r] = static_cast<int>(offsets[r + 1] - offsets[r]);
        displacements[r] = static_cast<int>(offsets[r]);
    }
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(MPI_Iallgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, data.data(), counts.data(), displacements.data(),
                              MPI_BYTE, communicator_, &request),
              "MPI_Iallgatherv");
    return std::make_unique<MpiExchange>(*this, request, std::move(counts), std::move(displacements));
}

}  // namespace espalier
