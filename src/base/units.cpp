#include "src/base/units.h"

#include <sys/resource.h>

#include <array>
#include <cmath>
#include <cstdio>

namespace espalier {

namespace {
template <typename... Values>
std::string print(const char* format, Values... values) {
    std::array<char, 64> text{};
    std::snprintf(text.data(), text.size(), format, values...);
    return text.data();
}
}  // namespace

std::string format_bytes(double bytes) {
    if (bytes < 1024) return print("%.0f B", bytes);
    constexpr std::array<const char*, 4> units = {"KiB", "MiB", "GiB", "TiB"};
    std::size_t unit = 0;
    for (bytes /= 1024; bytes >= 1024 && unit + 1 < units.size(); ++unit) bytes /= 1024;
    return print("%.1f %s", bytes, units[unit]);
}

std::string format_seconds(double seconds) {
    if (seconds < 9.95) return print("%.1f s", seconds);
    const long whole = std::lround(seconds);
    if (whole < 60) return print("%ld s", whole);
    if (whole < 3600) return print("%ld min %02ld s", whole / 60, whole % 60);
    return print("%ld h %02ld min", whole / 3600, whole % 3600 / 60);
}

std::size_t peak_resident_bytes() {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return static_cast<std::size_t>(usage.ru_maxrss) * 1024;
}

}  // namespace espalier
