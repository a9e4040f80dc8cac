#include "kernels/cpu/cpu_device.h"
#include "kernels/cpu/parallel.h"
#include "src/base/philox.h"

#include <array>
#include <vector>

namespace espalier {

void CpuDevice::dropout(const DropoutMask& mask, float kept, float dropped, bool accumulate, TensorView x,
                        TensorView y) {
    require(x.rows == y.rows && x.columns == y.columns, "shapes of dropout");
    const std::size_t columns = x.columns;
    const std::array key = {static_cast<std::uint32_t>(mask.seed), static_cast<std::uint32_t>(mask.seed >> 32)};
    const std::uint32_t threshold = mask.threshold();
    const std::size_t counters = (columns + 3) / 4;
    cpu::parallel_chunks(x.rows, cpu::rows_per_chunk(columns), [&](std::size_t begin, std::size_t end) {
        std::vector<std::uint32_t> words(4 * counters);
        std::uint32_t* const drawn = words.data();
        for (std::size_t row = begin; row < end; ++row) {
            const float* const in = x.floats() + row * columns;
            float* const out = y.floats() + row * columns;
            const std::uint64_t number = mask.first_row + row;
#pragma omp simd
            for (std::size_t i = 0; i < counters; ++i) {
                const auto four = philox4x32({static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(number),
                                              static_cast<std::uint32_t>(number >> 32), mask.stream},
                                             key);
                for (std::size_t j = 0; j < 4; ++j) drawn[4 * i + j] = four[j];
            }
#pragma omp simd
            for (std::size_t j = 0; j < columns; ++j) {
                const float value = in[j] * (drawn[j] < threshold ? dropped : kept);
                out[j] = accumulate ? out[j] + value : value;
            }
        }
    });
}

}  // namespace espalier
