// Rotary position embedding: dimension i turns with i + width / 2.
#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/element.cuh"

namespace espalier {

namespace {

using namespace cuda;

/// A thread takes `count` neighbouring pairs of one head of one token.
template <int count, typename T>
__global__ void rope_kernel(T* x, std::size_t tokens, std::size_t heads, std::size_t head_size, std::size_t half_size,
                            const float* cosine, const float* sine, float direction) {
    const std::size_t in_head = half_size / count;
    const std::size_t index = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x;
    if (index >= tokens * heads * in_head) return;
    const std::size_t i = index % in_head * count, head = index / in_head % heads, token = index / in_head / heads;
    T* const first = x + (token * heads + head) * head_size + i;
    T* const second = first + half_size;
    float a[count], b[count], c[count], s[count];
    load<count>(first, a);
    load<count>(second, b);
    load<count>(cosine + token * half_size + i, c);
    load<count>(sine + token * half_size + i, s);
    ESPALIER_UNROLL
    for (int j = 0; j < count; ++j) {
        const float turned = direction * s[j];
        const float rotated = a[j] * c[j] - b[j] * turned;
        b[j] = b[j] * c[j] + a[j] * turned;
        a[j] = rotated;
    }
    store<count>(first, a);
    store<count>(second, b);
}

}  // namespace

void CudaDevice::apply_rope(TensorView x, std::size_t head_size, TensorView cosine, TensorView sine, bool inverse) {
    const std::size_t half_size = cosine.columns, heads = x.columns / head_size;
    require(x.columns % head_size == 0, "head size of apply_rope");
    require(2 * half_size <= head_size && sine.columns == half_size && cosine.rows >= x.rows && sine.rows >= x.rows,
            "tables of apply_rope");
    const bool aligned =
        are_aligned({x.data, cosine.data, sine.data}) && half_size % wide == 0 && head_size % wide == 0;
    constexpr unsigned threads = 256;
    with_type(x.dtype, [&]<typename T>() {
        const auto run = [&]<int count>() {
            const std::size_t items = x.rows * heads * (half_size / count);
            if (items == 0) return;
            launch("apply_rope", rope_kernel<count, T>, {to_unsigned((items + threads - 1) / threads), threads},
                   stream_, as<T>(x), x.rows, heads, head_size, half_size, cosine.floats(), sine.floats(),
                   inverse ? -1.0F : 1.0F);
        };
        if (aligned)
            run.template operator()<wide>();
        else
            run.template operator()<1>();
    });
}

}  // namespace espalier
