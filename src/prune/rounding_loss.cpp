#include "src/prune/rounding_loss.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace espalier {

namespace {

struct Count {
    std::size_t kept = 0, same = 0;
};

/// Without branches, so that the compiler vectorises it. At most 65536 elements: counts fit 32 bits.
template <typename Bits>
Count count_piece(const std::byte* a, const std::byte* b, const std::uint8_t* mask, std::size_t count) {
    std::uint32_t kept = 0, same = 0;
    for (std::size_t i = 0; i < count; ++i) {
        Bits x, y;
        std::memcpy(&x, a + i * sizeof(Bits), sizeof(Bits));
        std::memcpy(&y, b + i * sizeof(Bits), sizeof(Bits));
        const std::uint32_t is_kept = mask[i] != 0 ? 1U : 0U;
        kept += is_kept;
        same += x == y ? is_kept : 0U;
    }
    return {kept, same};
}

}  // namespace

double unchanged_weight_share(DType dense_dtype, std::span<const std::byte> dense, DType written_dtype,
                              std::span<const std::byte> written, std::span<const std::uint8_t> mask) {
    constexpr std::size_t piece = 65536;
    const std::size_t from = bytes_of(dense_dtype), to = bytes_of(written_dtype);
    std::vector<float> values(piece);
    std::vector<std::byte> rounded(piece * to);
    std::size_t kept = 0, same = 0;
    for (std::size_t begin = 0; begin < mask.size(); begin += piece) {
        const std::size_t count = std::min(piece, mask.size() - begin);
        const std::byte* as_written = dense.data() + begin * from;
        if (dense_dtype != written_dtype) {
            widen_to_float(dense_dtype, dense.data() + begin * from, count, values.data());
            round_from_float(written_dtype, values.data(), count, rounded.data());
            as_written = rounded.data();
        }
        const auto count_them = to == 2 ? count_piece<std::uint16_t> : count_piece<std::uint32_t>;
        const Count found = count_them(as_written, written.data() + begin * to, mask.data() + begin, count);
        kept += found.kept;
        same += found.same;
    }
    return kept == 0 ? 0.0 : static_cast<double>(same) / static_cast<double>(kept);
}

}  // namespace espalier
