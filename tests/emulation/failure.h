#pragma once
/// Ends a program that no GPU could have run.

#include <string>

namespace espalier::emulation {

/// Prints the sentence and aborts: errors in kernels and in freeing memory must not pass for results.
[[noreturn]] void fail(const std::string& sentence);

}  // namespace espalier::emulation
