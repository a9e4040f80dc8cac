#include "src/base/philox.h"

#include "src/base/error.h"

#include <numeric>
#include <utility>

namespace espalier {

std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key) {
    constexpr std::uint64_t multiplier_0 = 0xD2511F53u, multiplier_1 = 0xCD9E8D57u;
    constexpr std::uint32_t weyl_0 = 0x9E3779B9u, weyl_1 = 0xBB67AE85u;
    for (int round = 0; round < 10; ++round) {
        const std::uint64_t product_0 = multiplier_0 * counter[0];
        const std::uint64_t product_1 = multiplier_1 * counter[2];
        counter = {
            static_cast<std::uint32_t>(product_1 >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(product_1),
            static_cast<std::uint32_t>(product_0 >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(product_0)};
        key = {key[0] + weyl_0, key[1] + weyl_1};
    }
    return counter;
}

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
