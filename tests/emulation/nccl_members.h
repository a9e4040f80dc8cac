#pragma once
/// Who takes part in a communicator: every member reports its rank to the process that made the unique id, which
/// answers with the table of all.

#include "tests/emulation/mpi_transport.h"

#include <nccl.h>

#include <memory>
#include <vector>

namespace espalier::emulation {

ncclUniqueId make_unique_id();

class NcclMembers {
  public:
    /// `rank` of `size`. The maker of the id has to be a member.
    NcclMembers(const ncclUniqueId& id, int rank, int size);

    /// Does what can be done without waiting. True when all members are known.
    bool are_known();
    int world_rank_of(int rank) const { return table_[static_cast<std::size_t>(rank)]; }
    /// Of the members' messages.
    int data_tag() const { return first_tag_ + 2; }

  private:
    void answer();

    int rank_, size_, maker_, first_tag_;
    std::vector<int> table_;  ///< world ranks
    bool answered_ = false, known_ = false;
    std::unique_ptr<Messages> reports_, answers_;
};

}  // namespace espalier::emulation
