#include "tests/emulation/nccl_fault.h"

#include "tests/emulation/mpi_transport.h"
#include "tests/emulation/settings.h"

namespace espalier::emulation {

ncclResult_t fault_of(const char* call) {
    NcclFault& fault = settings().nccl_fault;
    if (fault.call != call || (fault.rank >= 0 && fault.rank != world_rank())) return ncclSuccess;
    if (--fault.calls_until != 0) return ncclSuccess;
    return ncclSystemError;
}

}  // namespace espalier::emulation
