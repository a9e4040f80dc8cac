#include "src/prune/rounding_loss.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace espalier {

double unchanged_weight_share(DType dense_dtype, std::span<const std::byte> dense, DType written_dtype,
                              std::span<const std::byte> written, std::span<const std::uint8_t> mask) {
    constexpr std::size_t piece = 65536;
    const std::size_t from = bytes_of(dense_dtype), to = bytes_of(written_dtype);
    std::vector<float> values(piece);
    std::vector<std::byte> rounded(piece * to);
    std::size_t kept = 0, same = 0;
    for (std::size_t begin = 0; begin < mask.size(); begin += piece) {
        const std::size_t count = std::min(piece, mask.size() - begin);
        widen_to_float(dense_dtype, dense.data() + begin * from, count, values.data());
        round_from_float(written_dtype, values.data(), count, rounded.data());
        for (std::size_t i = 0; i < count; ++i) {
            if (mask[begin + i] == 0) continue;
            ++kept;
            same += std::memcmp(rounded.data() + i * to, written.data() + (begin + i) * to, to) == 0 ? 1U : 0U;
        }
    }
    return kept == 0 ? 0.0 : static_cast<double>(same) / static_cast<double>(kept);
}

}  // namespace espalier
