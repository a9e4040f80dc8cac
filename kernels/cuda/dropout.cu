// Dropout by counter.
#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/elementwise.cuh"
#include "kernels/cuda/philox.cuh"

namespace espalier {

namespace {

using namespace cuda;

constexpr int words_at_once = 4;

template <typename In, typename Out>
struct Dropout {
    std::uint64_t seed, first_row;
    std::uint32_t threshold, stream;
    float kept, dropped;
    bool accumulate;
    std::size_t columns;
    const In* x;
    Out* y;
    /// The elements at i … stand in one row, and begin with the first word of a counter when they are several.
    template <int count>
    __device__ void apply(std::size_t i) const {
        float in[count], out[count] = {};
        load<count>(x + i, in);
        if (accumulate) load<count>(y + i, out);
        const std::uint64_t row = first_row + i / columns;
        const std::size_t column = i % columns;
        ESPALIER_UNROLL
        for (int j = 0; j < count; j += words_at_once) {
            const PhiloxWords drawn =
                philox4x32({{static_cast<std::uint32_t>(column / words_at_once) + j / words_at_once,
                             static_cast<std::uint32_t>(row), static_cast<std::uint32_t>(row >> 32), stream}},
                           seed);
            ESPALIER_UNROLL
            for (int k = j; k < count && k < j + words_at_once; ++k) {
                const std::uint32_t word = drawn.words[count == 1 ? column % words_at_once : k - j];
                const float value = in[k] * (word < threshold ? dropped : kept);
                out[k] = accumulate ? out[k] + value : value;
            }
        }
        store<count>(y + i, out);
    }
};

}  // namespace

void CudaDevice::dropout(const DropoutMask& mask, float kept, float dropped, bool accumulate, TensorView x,
                         TensorView y) {
    require(x.rows == y.rows && x.columns == y.columns, "shapes of dropout");
    const bool aligned = are_aligned({x.data, y.data}) && x.columns % wide == 0;
    const auto run = [&]<typename In, typename Out>() {
        for_each_element("dropout", y.size(), aligned, stream_,
                         Dropout<In, Out>{mask.seed, mask.first_row, mask.threshold(), mask.stream, kept, dropped,
                                          accumulate, x.columns, as<const In>(x), as<Out>(y)});
    };
    with_type(x.dtype, [&]<typename T>() {
        if (y.dtype == DType::f32)
            run.template operator()<T, float>();
        else
            run.template operator()<T, T>();
    });
}

}  // namespace espalier
