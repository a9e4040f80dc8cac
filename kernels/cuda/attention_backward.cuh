#pragma once
/// What the files of attention's backward pass share: the arguments of its kernels, and their launch, which is compiled
/// in a file for each type of elements (attention_backward_*.cu), and for each width in float32, since nvcc takes long.
#include "kernels/cuda/attention.cuh"

namespace espalier::cuda {

template <typename T>
struct BackwardArguments {
    const T* q;
    const T* k;
    const T* v;
    const T* dout;
    const float* log_sum_exp;
    const float* delta;
    T* dq;
    T* dk;
    T* dv;
    AttentionSizes sizes;
};

/// Enqueues the kernels of the gradients of keys and values, and of queries, for heads of at most `width` elements. A
/// block may have `shared_bytes_of_block` bytes of shared memory, on which the size of the tiles depends.
template <typename Element, int width>
void launch_attention_backward(const BackwardArguments<Storage<Element>>& arguments, std::size_t shared_bytes_of_block,
                               cudaStream_t stream);

}  // namespace espalier::cuda
