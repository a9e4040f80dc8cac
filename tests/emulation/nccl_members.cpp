#include "tests/emulation/nccl_members.h"

#include "tests/emulation/failure.h"

#include <atomic>
#include <cstring>
#include <string>

namespace espalier::emulation {

namespace {

/// Inside an ncclUniqueId.
struct Id {
    int maker;      ///< world rank
    int first_tag;  ///< of three: reports, answers, data
};

struct Report {
    int rank, size, world_rank;
};

template <typename T>
std::span<const std::byte> bytes_of(const T& value) {
    return std::as_bytes(std::span<const T>(&value, 1));
}

}  // namespace

ncclUniqueId make_unique_id() {
    constexpr int tags = 3, communicators_of_maker = 1024;
    static std::atomic<int> serial{0};
    const Id id{world_rank(), tags * (world_rank() * communicators_of_maker + serial++ % communicators_of_maker)};
    ncclUniqueId result{};
    std::memcpy(result.internal, &id, sizeof id);
    return result;
}

NcclMembers::NcclMembers(const ncclUniqueId& unique_id, int rank, int size)
    : rank_(rank), size_(size), table_(static_cast<std::size_t>(size), -1) {
    Id id{};
    std::memcpy(&id, unique_id.internal, sizeof id);
    maker_ = id.maker;
    first_tag_ = id.first_tag;
    table_[static_cast<std::size_t>(rank)] = world_rank();
    if (size == 1) {
        known_ = true;
        return;
    }
    if (!mpi_is_running()) fail("NCCL between processes is emulated over MPI, which has not been started");
    reports_ = std::make_unique<Messages>();
    answers_ = std::make_unique<Messages>();
    if (world_rank() == maker_) {
        for (int other = 1; other < size; ++other) reports_->receive(MPI_ANY_SOURCE, first_tag_, sizeof(Report));
    } else {
        reports_->send(maker_, first_tag_, bytes_of(Report{rank, size, world_rank()}));
        answers_->receive(maker_, first_tag_ + 1, table_.size() * sizeof(int));
    }
}

bool NcclMembers::are_known() {
    if (known_) return true;
    if (!reports_->have_arrived()) return false;
    if (world_rank() == maker_) {
        if (!answered_) answer();
        known_ = answers_->have_arrived();
    } else if (answers_->have_arrived()) {
        std::memcpy(table_.data(), answers_->received(0).data(), table_.size() * sizeof(int));
        known_ = true;
    }
    return known_;
}

void NcclMembers::answer() {
    answered_ = true;
    for (std::size_t i = 0; i + 1 < table_.size(); ++i) {
        Report report{};
        std::memcpy(&report, reports_->received(i).data(), sizeof report);
        const bool fits = report.size == size_ && report.rank >= 0 && report.rank < size_;
        if (!fits || table_[static_cast<std::size_t>(report.rank)] >= 0) {
            fail("ncclCommInitRankConfig: world rank " + std::to_string(report.world_rank) + " is rank " +
                 std::to_string(report.rank) + " of " + std::to_string(report.size) +
                 ", which is taken or not one of " + std::to_string(size_));
        }
        table_[static_cast<std::size_t>(report.rank)] = report.world_rank;
    }
    for (int rank = 0; rank < size_; ++rank) {
        if (rank != rank_)
            answers_->send(world_rank_of(rank), first_tag_ + 1, std::as_bytes(std::span<const int>(table_)));
    }
}

}  // namespace espalier::emulation
