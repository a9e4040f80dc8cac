#pragma once
/// Counter-based random numbers (Philox4x32-10, Salmon et al., SC 2011): a value is a pure function of key and counter,
/// so it depends neither on the number of ranks nor on what was drawn before.

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace espalier {

/// One Philox4x32-10 block: four 32-bit words for a 128-bit counter and a 64-bit key. Inline, so that loops over
/// counters become loops over vectors.
constexpr std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                                  std::array<std::uint32_t, 2> key) {
    constexpr std::uint64_t multiplier_0 = 0xD2511F53U, multiplier_1 = 0xCD9E8D57U;
    constexpr std::uint32_t weyl_0 = 0x9E3779B9U, weyl_1 = 0xBB67AE85U;
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

/// `count` different numbers out of 0 … population-1, in drawing order: the first `count` steps of a Fisher-Yates
/// shuffle whose j-th choice is the multiply-shift reduction of the 64-bit word philox(counter = {j, block, round, 0},
/// key = seed) (words 0 and 1). Throws BugError when count > population.
std::vector<std::size_t> draw_without_replacement(std::uint64_t seed, std::uint32_t block, std::uint32_t round,
                                                  std::size_t count, std::size_t population);

}  // namespace espalier
