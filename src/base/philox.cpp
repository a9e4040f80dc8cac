#include "src/base/philox.h"

#include "src/base/error.h"

#include <numeric>
#include <utility>

namespace espalier {

std::vector<std::size_t> draw_without_replacement(std::uint64_t seed, std::uint32_t block, std::uint32_t round,
                                                  std::size_t count, std::size_t population) {
    require(count <= population, "a draw without replacement is no larger than its population");
    const std::array key = {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)};
    std::vector<std::size_t> order(population);
    std::iota(order.begin(), order.end(), std::size_t{0});
    for (std::size_t j = 0; j < count; ++j) {
        const auto words = philox4x32({static_cast<std::uint32_t>(j), block, round, 0}, key);
        const std::uint64_t word = (static_cast<std::uint64_t>(words[0]) << 32) | words[1];
        const auto scaled = static_cast<unsigned __int128>(word) * (population - j);
        std::swap(order[j], order[j + static_cast<std::size_t>(scaled >> 64)]);
    }
    order.resize(count);
    return order;
}

}  // namespace espalier
