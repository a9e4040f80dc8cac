#include "tests/emulation/mpi_transport.h"

#include "tests/emulation/failure.h"
#include "tests/emulation/stream.h"

#include <climits>
#include <list>
#include <string>

namespace espalier::emulation {

namespace {

/// A duplicate of MPI_COMM_WORLD, so that no message meets one of the program's.
MPI_Comm transport = MPI_COMM_NULL;

int length_of(std::size_t bytes) {
    if (bytes > INT_MAX) fail("a message of " + std::to_string(bytes) + " bytes is more than the emulation sends");
    return static_cast<int>(bytes);
}

/// What abandoned messages still may read and write.
void keep_forever(std::vector<std::vector<std::byte>> buffers) {
    static auto& kept = *new std::list<std::vector<std::vector<std::byte>>>;
    kept.push_back(std::move(buffers));
}

}  // namespace

bool mpi_is_running() {
    return transport != MPI_COMM_NULL;
}

int world_rank() {
    int rank = 0;
    if (mpi_is_running()) PMPI_Comm_rank(transport, &rank);
    return rank;
}

Messages::~Messages() {
    if (!done_) keep_forever(std::move(buffers_));
}

void Messages::send(int world_rank, int tag, std::span<const std::byte> bytes) {
    buffers_.emplace_back(bytes.begin(), bytes.end());
    is_receive_.push_back(false);
    PMPI_Issend(buffers_.back().data(), length_of(bytes.size()), MPI_BYTE, world_rank, tag, transport,
                &requests_.emplace_back());
    done_ = false;
}

std::size_t Messages::receive(int world_rank, int tag, std::size_t bytes) {
    buffers_.emplace_back(bytes);
    is_receive_.push_back(true);
    PMPI_Irecv(buffers_.back().data(), length_of(bytes), MPI_BYTE, world_rank, tag, transport,
               &requests_.emplace_back());
    done_ = false;
    return buffers_.size() - 1;
}

bool Messages::have_arrived() {
    if (done_) return true;
    int done = 0;
    std::vector<MPI_Status> statuses(requests_.size());
    PMPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &done, statuses.data());
    if (done == 0) return false;
    done_ = true;
    for (std::size_t i = 0; i < buffers_.size(); ++i) {
        int length = 0;
        PMPI_Get_count(&statuses[i], MPI_BYTE, &length);
        if (!is_receive_[i] || static_cast<std::size_t>(length) == buffers_[i].size()) continue;
        fail("a receive of " + std::to_string(buffers_[i].size()) + " bytes met a send of " + std::to_string(length));
    }
    return true;
}

}  // namespace espalier::emulation

// ---- wrappers of what the program calls

extern "C" {

int MPI_Init_thread(int* argc, char*** argv, int required, int* provided) {
    const int status = PMPI_Init_thread(argc, argv, required, provided);
    if (status == MPI_SUCCESS) PMPI_Comm_dup(MPI_COMM_WORLD, &espalier::emulation::transport);
    return status;
}

int MPI_Finalize() {
    if (espalier::emulation::mpi_is_running()) PMPI_Comm_free(&espalier::emulation::transport);
    return PMPI_Finalize();
}

int MPI_Test(MPI_Request* request, int* done, MPI_Status* status) {
    espalier::emulation::drive_streams();
    return PMPI_Test(request, done, status);
}

int MPI_Testall(int count, MPI_Request requests[], int* done, MPI_Status statuses[]) {
    espalier::emulation::drive_streams();
    return PMPI_Testall(count, requests, done, statuses);
}

}  // extern "C"
