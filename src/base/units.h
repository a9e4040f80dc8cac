#pragma once
/// Quantities as people read them.

#include <cstddef>
#include <string>

namespace espalier {

/// "512 B", "1.5 MiB", "12.0 GiB".
std::string format_bytes(double bytes);
/// Bytes from "16GiB", "800 MiB", "2TB", "1073741824": binary and decimal units, and none for bytes. Throws InputError
/// naming `option`.
std::size_t parse_bytes(const std::string& text, const std::string& option);
/// "0 s", "35 us", "4.2 ms", "63 ms", "0.8 s", "42 s", "3 min 05 s", "2 h 07 min".
std::string format_seconds(double seconds);
/// Time of all devices together: "0.4 GPU seconds", "12 GPU minutes", "3.1 GPU hours" for the device "GPU".
std::string format_device_time(double seconds, const std::string& device);
/// Host memory that programs can still take (MemAvailable of /proc/meminfo), in bytes; the largest number where the
/// system does not say.
std::size_t available_host_bytes();
/// The largest resident set of this process so far, in bytes (getrusage).
std::size_t peak_resident_bytes();

}  // namespace espalier
