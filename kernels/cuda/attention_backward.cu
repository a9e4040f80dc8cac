// Backward pass of causal attention: delta, and the choice of the kernels (attention_backward_kernels.cuh).
#include "kernels/cuda/attention_backward.cuh"
#include "kernels/cuda/cuda_device.h"

namespace espalier {

namespace {

using namespace cuda;

constexpr int delta_threads = 128;

/// delta[head, token] = sum of dout * out over the head; a warp takes one head of one token.
template <typename T>
__global__ void __launch_bounds__(delta_threads)
    delta_kernel(const T* dout, const T* out, AttentionSizes sizes, float* delta) {
    const int lane = static_cast<int>(threadIdx.x) % warp_size;
    const std::size_t item = (std::size_t{blockIdx.x} * delta_threads + threadIdx.x) / warp_size;
    const std::size_t heads = static_cast<std::size_t>(sizes.query_heads);
    if (item >= heads * static_cast<std::size_t>(sizes.tokens)) return;
    const std::size_t first = item * static_cast<std::size_t>(sizes.head_size);
    float sum = 0;
    for (int j = lane; j < sizes.head_size; j += warp_size) sum += to_float(dout[first + j]) * to_float(out[first + j]);
    sum = reduce_in_warp(sum, Sum());
    if (lane == 0) delta[item % heads * sizes.tokens + item / heads] = sum;
}

}  // namespace

void CudaDevice::attention_backward(TensorView q, TensorView k, TensorView v, TensorView out, TensorView log_sum_exp,
                                    TensorView dout, const AttentionShape& shape, TensorView dq, TensorView dk,
                                    TensorView dv) {
    AttentionSizes sizes = check_attention(q, k, v, out, log_sum_exp, shape);
    require(dout.size() == q.size() && dq.size() == q.size() && dk.size() == k.size() && dv.size() == k.size(),
            "shapes of attention_backward");
    require(dout.dtype == q.dtype && dq.dtype == q.dtype && dk.dtype == q.dtype && dv.dtype == q.dtype,
            "types of attention_backward");
    if (q.size() == 0) return;
    sizes.aligned = sizes.aligned && are_aligned({dout.data});
    const Tensor delta = make_tensor(DType::f32, shape.query_heads, q.rows, working_memory);
    const std::size_t items = shape.query_heads * q.rows, per_block = delta_threads / warp_size;
    with_type(q.dtype, [&]<typename T>() {
        launch("attention_backward", delta_kernel<T>, {to_unsigned((items + per_block - 1) / per_block), delta_threads},
               stream_, as<T>(dout), as<T>(out), sizes, delta.view().floats());
    });
    with_attention_kernel(q.dtype, float32_products_, shape.head_size, [&]<typename Element, int width>() {
        using T = Storage<Element>;
        const BackwardArguments<T> arguments{
            as<T>(q),  as<T>(k),  as<T>(v),  as<T>(dout), log_sum_exp.floats(), delta.view().floats(),
            as<T>(dq), as<T>(dk), as<T>(dv), sizes};
        launch_attention_backward<Element, width>(arguments, shared_bytes_of_block_, stream_);
    });
    // Five products over the lower triangle; the two that are computed twice count once.
    flops_ += 5.0 * lower_triangle_flops(q);
}

}  // namespace espalier
