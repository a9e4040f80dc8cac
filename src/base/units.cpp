#include "src/base/units.h"

#include "src/base/error.h"

#include <sys/resource.h>

#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <utility>

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

std::size_t parse_bytes(const std::string& text, const std::string& option) {
    constexpr std::array<std::pair<const char*, double>, 10> units = {{{"", 1},
                                                                       {"B", 1},
                                                                       {"KB", 1e3},
                                                                       {"MB", 1e6},
                                                                       {"GB", 1e9},
                                                                       {"TB", 1e12},
                                                                       {"KiB", 0x1p10},
                                                                       {"MiB", 0x1p20},
                                                                       {"GiB", 0x1p30},
                                                                       {"TiB", 0x1p40}}};
    char* end = nullptr;
    const double number = std::strtod(text.c_str(), &end);
    while (*end == ' ') ++end;
    for (const auto& [name, factor] : units) {
        if (end == text.c_str() || std::string(end) != name) continue;
        const double bytes = number * factor;
        if (bytes >= 1 && bytes < 0x1p60) return static_cast<std::size_t>(bytes);
    }
    throw InputError("--" + option + " '" + text + "' is not a number of bytes such as 16GiB or 45GB");
}

std::string format_seconds(double seconds) {
    if (seconds <= 0) return "0 s";
    if (seconds < 9.95e-5) return print("%.0f us", seconds * 1e6);
    if (seconds < 9.95e-3) return print("%.1f ms", seconds * 1e3);
    if (seconds < 9.95e-2) return print("%.0f ms", seconds * 1e3);
    if (seconds < 9.95) return print("%.1f s", seconds);
    const long whole = std::lround(seconds);
    if (whole < 60) return print("%ld s", whole);
    if (whole < 3600) return print("%ld min %02ld s", whole / 60, whole % 60);
    return print("%ld h %02ld min", whole / 3600, whole % 3600 / 60);
}

std::string format_device_time(double seconds, const std::string& device) {
    if (seconds < 60) return print("%.2g ", seconds) + device + " seconds";
    if (seconds < 3600) return print("%.2g ", seconds / 60) + device + " minutes";
    return print(seconds < 3.6e6 ? "%.3g " : "%.0f ", seconds / 3600) + device + " hours";
}

std::size_t peak_resident_bytes() {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return static_cast<std::size_t>(usage.ru_maxrss) * 1024;
}

std::size_t available_host_bytes() {
    std::ifstream file("/proc/meminfo");
    std::string name;
    std::size_t kilobytes = 0;
    std::string unit;
    while (file >> name >> kilobytes) {
        std::getline(file, unit);
        if (name == "MemAvailable:") return kilobytes << 10U;
    }
    return std::numeric_limits<std::size_t>::max();
}

}  // namespace espalier
