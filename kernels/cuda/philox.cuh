#pragma once
/// src/base/philox.h for kernels.

#include <cstdint>

namespace espalier::cuda {

struct PhiloxWords {
    std::uint32_t words[4];
};

/// One Philox4x32-10 block (Salmon et al., SC 2011) of a counter under a 64-bit key.
__device__ inline PhiloxWords philox4x32(PhiloxWords counter, std::uint64_t seed) {
    std::uint32_t key[2] = {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)};
    for (int round = 0; round < 10; ++round) {
        const std::uint64_t first = std::uint64_t{0xD2511F53U} * counter.words[0];
        const std::uint64_t second = std::uint64_t{0xCD9E8D57U} * counter.words[2];
        counter = {
            {static_cast<std::uint32_t>(second >> 32) ^ counter.words[1] ^ key[0], static_cast<std::uint32_t>(second),
             static_cast<std::uint32_t>(first >> 32) ^ counter.words[3] ^ key[1], static_cast<std::uint32_t>(first)}};
        key[0] += 0x9E3779B9U;
        key[1] += 0xBB67AE85U;
    }
    return counter;
}

}  // namespace espalier::cuda
