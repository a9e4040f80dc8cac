#include "kernels/cpu/selection.h"

#include <algorithm>

namespace espalier::cpu {

void mark_smallest(std::span<std::uint64_t> keys, std::size_t remove, std::uint8_t* keep) {
    std::fill_n(keep, keys.size(), std::uint8_t{1});
    if (remove == 0) return;
    if (remove < keys.size()) {
        std::nth_element(keys.begin(), keys.begin() + static_cast<std::ptrdiff_t>(remove) - 1, keys.end());
    }
    for (std::size_t i = 0; i < std::min(remove, keys.size()); ++i) keep[static_cast<std::uint32_t>(keys[i])] = 0;
}

}  // namespace espalier::cpu
