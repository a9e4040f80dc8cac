#pragma once
/// Failures of NCCL on demand, for tests of what the program does about them.

#include <nccl.h>

namespace espalier::emulation {

/// Set by ESPALIER_EMULATED_NCCL_FAULT=call[:number[:rank]]: the call (of this number, from 1, in the process of this
/// rank; otherwise the first, of every rank) fails. Besides functions' names there are two calls that streams make:
/// `exchange` fails while it is under way, `silence` never begins, as if this rank had stopped.
ncclResult_t fault_of(const char* call);

}  // namespace espalier::emulation
