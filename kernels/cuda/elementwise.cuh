#pragma once
/// One launch for all element-wise kernels: an operation handles the element at i, or `wide` elements from i on.

#include "kernels/cuda/element.cuh"

namespace espalier::cuda {

inline constexpr int elementwise_threads = 256;

/// Elements that an operation takes at a time where memory is aligned: `wide`, or its own at_once.
template <typename Operation>
__host__ __device__ constexpr int elements_at_once() {
    if constexpr (requires { Operation::at_once; }) {
        return Operation::at_once;
    } else {
        return wide;
    }
}

/// For operations on float32 only: neighbouring threads then touch neighbouring 16 bytes.
inline constexpr int four_floats = 4;

/// operation.template apply<count>(i) for all elements, with count > 1 where `aligned`; before,
/// operation.prepare() once a thread, when there is one.
template <typename Operation>
__global__ void __launch_bounds__(elementwise_threads)
    for_each_element_kernel(std::size_t elements, bool aligned, Operation operation) {
    const std::size_t thread = std::size_t{blockIdx.x} * elementwise_threads + threadIdx.x;
    const std::size_t stride = std::size_t{gridDim.x} * elementwise_threads;
    constexpr int at_once = elements_at_once<Operation>();
    const std::size_t packs = aligned ? elements / at_once : 0;
    if constexpr (requires { operation.prepare(); }) operation.prepare();
    for (std::size_t i = thread; i < packs; i += stride) operation.template apply<at_once>(i * at_once);
    for (std::size_t i = packs * at_once + thread; i < elements; i += stride) operation.template apply<1>(i);
}

/// The same on every GPU, since sums are cut by it too; each thread then goes on with a stride.
inline unsigned elementwise_blocks(std::size_t elements) {
    constexpr std::size_t most_blocks = 2112;  // enough: 8 to 20 for each multiprocessor of today's GPUs
    const std::size_t wanted = (elements + elementwise_threads * wide - 1) / (elementwise_threads * wide);
    return to_unsigned(wanted < most_blocks ? wanted : most_blocks);
}

template <typename Operation>
void for_each_element(const char* name, std::size_t elements, bool aligned, cudaStream_t stream,
                      const Operation& operation) {
    if (elements == 0) return;
    launch(name, for_each_element_kernel<Operation>, {elementwise_blocks(elements), elementwise_threads}, stream,
           elements, aligned, operation);
}

}  // namespace espalier::cuda
