#pragma once
/// Sums and maxima over the threads of a warp or a block, in an order fixed by their number.

#include "kernels/cuda/launch.cuh"

namespace espalier::cuda {

inline constexpr unsigned all_lanes = 0xffffffffu;
inline constexpr int warp_size = 32;

struct Sum {
    template <typename T>
    __device__ T operator()(T a, T b) const {
        return a + b;
    }
};
struct Maximum {
    __device__ float operator()(float a, float b) const { return fmaxf(a, b); }
};

/// Over groups of `width` neighbouring lanes; every lane gets its group's result.
template <int width = warp_size, typename T, typename Operation>
__device__ T reduce_in_warp(T value, Operation operation) {
    ESPALIER_UNROLL
    for (int distance = width / 2; distance > 0; distance /= 2) {
        value = operation(value, __shfl_xor_sync(all_lanes, value, distance));
    }
    return value;
}

/// Over a block of `threads` threads (whole warps); every thread gets the result. May be called again at once.
template <int threads, typename T, typename Operation>
__device__ T reduce_in_block(T value, T identity, Operation operation) {
    constexpr int warps = threads / warp_size;
    ESPALIER_SHARED_ARRAY(T, of_warp, warps);
    const int lane = static_cast<int>(threadIdx.x) % warp_size, warp = static_cast<int>(threadIdx.x) / warp_size;
    value = reduce_in_warp(value, operation);
    if (lane == 0) of_warp[warp] = value;
    __syncthreads();
    value = lane < warps ? of_warp[lane] : identity;
    value = reduce_in_warp(value, operation);
    __syncthreads();
    return value;
}

}  // namespace espalier::cuda
