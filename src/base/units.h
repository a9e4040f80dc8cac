#pragma once
/// Quantities as people read them.

#include <cstddef>
#include <string>

namespace espalier {

/// "512 B", "1.5 MiB", "12.0 GiB".
std::string format_bytes(double bytes);
/// "0.8 s", "42 s", "3 min 05 s", "2 h 07 min".
std::string format_seconds(double seconds);
/// The largest resident set of this process so far, in bytes (getrusage).
std::size_t peak_resident_bytes();

}  // namespace espalier
