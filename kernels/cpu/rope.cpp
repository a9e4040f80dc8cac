// Rotary position embedding, "rotate half" form: dimension i turns with i + width / 2, the table's width.
#include "kernels/cpu/cpu_device.h"
#include "kernels/cpu/parallel.h"

namespace espalier {

void CpuDevice::apply_rope(TensorView x, std::size_t head_size, TensorView cosine, TensorView sine, bool inverse) {
    const std::size_t half = cosine.columns;
    require(x.columns % head_size == 0, "head size of apply_rope");
    require(cosine.rows >= x.rows && 2 * half <= head_size && sine.size() == cosine.size(), "tables of apply_rope");
    const std::size_t heads = x.columns / head_size;
    const float sign = inverse ? -1.0F : 1.0F;
    cpu::parallel_chunks(x.rows, cpu::rows_per_chunk(x.columns), [&](std::size_t begin, std::size_t end) {
        for (std::size_t row = begin; row < end; ++row) {
            const float* const c = cosine.floats() + row * half;
            const float* const s = sine.floats() + row * half;
            for (std::size_t head = 0; head < heads; ++head) {
                float* const first = x.floats() + row * x.columns + head * head_size;
                float* const second = first + half;
#pragma omp simd
                for (std::size_t i = 0; i < half; ++i) {
                    const float a = first[i], b = second[i], turn = sign * s[i];
                    first[i] = a * c[i] - b * turn;
                    second[i] = b * c[i] + a * turn;
                }
            }
        }
    });
}

}  // namespace espalier
