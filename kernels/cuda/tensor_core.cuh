#pragma once
/// Products of small tiles on tensor cores, and their scalar twin for the emulation: the only instructions of the
/// kernels that the CPU cannot execute.
///
/// A warp multiplies a 16 x 16 tile A by a 16 x 8 tile B into a 16 x 8 tile of float32 accumulators, of which lane l
/// holds rows l/4 and l/4 + 8 of columns 2 (l % 4) and 2 (l % 4) + 1. Tiles come from shared memory or, for A, from
/// accumulators. Element types: bfloat16 and half (PTX mma.m16n8k16), Tf32 (two mma.m16n8k8 on float32 of which the
/// tensor cores see 10 mantissa bits, as in cuBLAS's products), and Tf32Split (three products of float32 split into two
/// Tf32 parts: errors of about 2^-22).

#include "kernels/cuda/element.cuh"
#include "kernels/cuda/reduce.cuh"

namespace espalier::cuda {

struct Accumulator {
    float v[4] = {};
};

/// Rows and columns of an accumulator's values in its 16 x 8 tile.
struct LanePlace {
    int row = static_cast<int>(threadIdx.x) % warp_size / 4;  ///< of v[0], v[1]; v[2], v[3] lie 8 rows below
    int pair = static_cast<int>(threadIdx.x) % 4;             ///< columns 2 pair, 2 pair + 1
};

/// Precisions of float32 tensors.
struct Tf32 {};
struct Tf32Split {};

/// What an element is stored as.
template <typename Element>
struct StorageOf {
    using type = Element;
};
template <>
struct StorageOf<Tf32> {
    using type = float;
};
template <>
struct StorageOf<Tf32Split> {
    using type = float;
};
template <typename Element>
using Storage = typename StorageOf<Element>::type;

/// Elements that a row of a tile in shared memory is longer than its contents, so that the reads below use all banks.
template <typename Element>
inline constexpr int row_padding = sizeof(Storage<Element>) == 2 ? 8 : 4;

// ---- the instructions

#ifdef ESPALIER_EMULATION

/// Nearest with ties away from zero, as cvt.rna.tf32.f32.
inline unsigned round_to_tf32(float value) {
    const unsigned bits = __float_as_uint(value);
    if ((bits & 0x7f800000U) == 0x7f800000U) return bits;
    return (bits + 0x1000U) & ~0x1fffU;
}

template <typename T>
struct MmaOperands {
    unsigned a[4];
    unsigned b[2];
};

template <typename T>
float half_of(unsigned pair, int index) {
    const auto bits = static_cast<unsigned short>(pair >> (16 * index));
    T value;
    std::memcpy(static_cast<void*>(&value), &bits, sizeof value);
    return to_float(value);
}

/// mma.m16n8k16 for 16-bit elements.
template <typename T>
void mma_instruction(Accumulator& c, const unsigned (&a)[4], const unsigned (&b)[2]) {
    const LanePlace place;
    const auto* const lanes = emulation::share_in_warp(MmaOperands<T>{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}});
    for (int i = 0; i < 4; ++i) {
        const int row = place.row, lower = i / 2, column = 2 * place.pair + i % 2;
        float sum = c.v[i];
        for (int k = 0; k < 16; ++k) {
            const int lane_in_row = k % 8 / 2, upper_half = k / 8;
            const float left = half_of<T>(lanes[row * 4 + lane_in_row].a[2 * upper_half + lower], k % 2);
            sum += left * half_of<T>(lanes[column * 4 + lane_in_row].b[upper_half], k % 2);
        }
        c.v[i] = sum;
    }
}

/// mma.m16n8k8 for Tf32, which takes no notice of the 13 low bits.
inline void mma_tf32_instruction(Accumulator& c, const unsigned (&a)[4], const unsigned (&b)[2]) {
    const LanePlace place;
    const auto* const lanes = emulation::share_in_warp(MmaOperands<float>{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}});
    for (int i = 0; i < 4; ++i) {
        const int row = place.row, lower = i / 2, column = 2 * place.pair + i % 2;
        float sum = c.v[i];
        for (int k = 0; k < 8; ++k) {
            const float left = __uint_as_float(lanes[row * 4 + k % 4].a[2 * (k / 4) + lower] & ~0x1fffU);
            sum += left * __uint_as_float(lanes[column * 4 + k % 4].b[k / 4] & ~0x1fffU);
        }
        c.v[i] = sum;
    }
}

/// ldmatrix.x4: four tiles of 8 rows of 16 bytes (8 elements of 16 bits, 4 of 32), of which lane l names row l % 8 of
/// tile l / 8 by its address. Only tiles of 16-bit elements can be transposed.
template <bool transposed, typename T>
void load_four_tiles(unsigned (&registers)[4], const T* row_of_lane) {
    const int lane = static_cast<int>(threadIdx.x) % warp_size;
    const auto* const rows = emulation::share_in_warp(row_of_lane);
    if constexpr (sizeof(T) == 4) {
        static_assert(!transposed);
        for (int tile = 0; tile < 4; ++tile) std::memcpy(&registers[tile], rows[tile * 8 + lane / 4] + lane % 4, 4);
        return;
    }
    for (int tile = 0; tile < 4; ++tile) {
        unsigned short bits[2];
        for (int i = 0; i < 2; ++i) {
            const int row = transposed ? lane % 4 * 2 + i : lane / 4, column = transposed ? lane / 4 : lane % 4 * 2 + i;
            std::memcpy(&bits[i], rows[tile * 8 + row] + column, sizeof bits[i]);
        }
        registers[tile] = bits[0] | static_cast<unsigned>(bits[1]) << 16;
    }
}

/// 2^x to about 2^-22; 0 instead of a subnormal result.
inline float approximate_exp2(float x) {
    return x < -126.0F ? 0.0F : exp2f(x);
}

/// 16 bytes from global to shared memory; zeros when they do not exist.
inline void copy_16_bytes(void* shared, const void* global, bool exists) {
    emulation::copy_asynchronously(shared, exists ? global : nullptr, 16);
}
/// Ends a group of copies.
inline void commit_copies() {
    emulation::commit_copies();
}
/// Waits until at most `left` of this thread's groups are under way.
template <int left>
void wait_for_copies() {
    emulation::wait_for_copies(left);
}

#else

__device__ inline unsigned round_to_tf32(float value) {
    unsigned bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
    return bits;
}

#define ESPALIER_MMA(shape_and_types)                                               \
    asm volatile("mma.sync.aligned." shape_and_types                                \
                 " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \
                 : "+f"(c.v[0]), "+f"(c.v[1]), "+f"(c.v[2]), "+f"(c.v[3])           \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))

template <typename T>
__device__ void mma_instruction(Accumulator& c, const unsigned (&a)[4], const unsigned (&b)[2]) {
    if constexpr (std::is_same_v<T, half>) {
        ESPALIER_MMA("m16n8k16.row.col.f32.f16.f16.f32");
    } else {
        ESPALIER_MMA("m16n8k16.row.col.f32.bf16.bf16.f32");
    }
}

__device__ inline void mma_tf32_instruction(Accumulator& c, const unsigned (&a)[4], const unsigned (&b)[2]) {
    ESPALIER_MMA("m16n8k8.row.col.f32.tf32.tf32.f32");
}

#undef ESPALIER_MMA

template <bool transposed, typename T>
__device__ void load_four_tiles(unsigned (&registers)[4], const T* row_of_lane) {
    const auto address = static_cast<unsigned>(__cvta_generic_to_shared(row_of_lane));
    if constexpr (transposed) {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
                     : "r"(address)
                     : "memory");
    } else {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
                     : "r"(address)
                     : "memory");
    }
}

__device__ inline float approximate_exp2(float x) {
    float result;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
    return result;
}

__device__ inline void copy_16_bytes(void* shared, const void* global, bool exists) {
    const auto address = static_cast<unsigned>(__cvta_generic_to_shared(shared));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(global), "r"(exists ? 16 : 0)
                 : "memory");
}
__device__ inline void commit_copies() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int left>
__device__ void wait_for_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(left) : "memory");
}

#endif

// ---- fragments: a lane's share of the tiles, for each kind of element

/// 16-bit elements.
template <typename T>
struct TensorCore {
    struct A {
        unsigned r[4];
    };
    /// Two neighbouring 16 x 8 tiles.
    struct B {
        unsigned r[4];
    };

    /// A is `tile` [16, 16], rows `stride` apart.
    __device__ static void load_a(A& a, const T* tile, int stride) {
        const int lane = static_cast<int>(threadIdx.x) % warp_size;
        load_four_tiles<false>(a.r, tile + lane % 16 * stride + lane / 16 * 8);
    }
    /// B^T is `tile` [16 columns of B, 16].
    __device__ static void load_b_transposed(B& b, const T* tile, int stride) {
        const int lane = static_cast<int>(threadIdx.x) % warp_size;
        load_four_tiles<false>(b.r, tile + (lane / 16 * 8 + lane % 8) * stride + lane / 8 % 2 * 8);
    }
    /// B is `tile` [16, 16 columns of B]; for an A that comes from accumulators.
    __device__ static void load_b(B& b, const T* tile, int stride) {
        const int lane = static_cast<int>(threadIdx.x) % warp_size;
        load_four_tiles<true>(b.r, tile + lane % 16 * stride + lane / 16 * 8);
    }
    /// A from the accumulators of two neighbouring tiles.
    __device__ static void from_accumulators(A& a, const Accumulator& left, const Accumulator& right) {
        a.r[0] = pack(left.v[0], left.v[1]);
        a.r[1] = pack(left.v[2], left.v[3]);
        a.r[2] = pack(right.v[0], right.v[1]);
        a.r[3] = pack(right.v[2], right.v[3]);
    }
    /// left, right += A times the two tiles of B.
    __device__ static void multiply(Accumulator& left, Accumulator& right, const A& a, const B& b) {
        const unsigned first[2] = {b.r[0], b.r[1]}, second[2] = {b.r[2], b.r[3]};
        mma_instruction<T>(left, a.r, first);
        mma_instruction<T>(right, a.r, second);
    }

  private:
    __device__ static unsigned pack(float low, float high) {
        const T values[2] = {from_float<T>(low), from_float<T>(high)};
        unsigned bits;
        memcpy(&bits, values, sizeof bits);
        return bits;
    }
};

/// float32 elements, as they are or split. A 16 x 16 tile is two of depth 8. Where A comes from accumulators, a lane
/// holds neighbouring columns instead of columns 4 apart: the order of the depth is permuted, and load_b permutes B
/// alike.
template <bool split>
struct Tf32Core {
    struct Value {
        unsigned parts[split ? 2 : 1];  ///< their sum is the value
    };
    struct A {
        Value r[2][4];
    };
    struct B {
        Value r[2][2][2];  ///< by tile, by depth
    };

    __device__ static void load_a(A& a, const float* tile, int stride) {
        const int lane = static_cast<int>(threadIdx.x) % warp_size;
        ESPALIER_UNROLL
        for (int depth = 0; depth < 2; ++depth) {
            unsigned bits[4];
            load_four_tiles<false>(bits, tile + lane % 16 * stride + depth * 8 + lane / 16 * 4);
            ESPALIER_UNROLL
            for (int i = 0; i < 4; ++i) a.r[depth][i] = stored_value(bits[i]);
        }
    }
    __device__ static void load_b_transposed(B& b, const float* tile, int stride) {
        const int lane = static_cast<int>(threadIdx.x) % warp_size;
        ESPALIER_UNROLL
        for (int t = 0; t < 2; ++t) {
            unsigned bits[4];
            load_four_tiles<false>(bits, tile + (t * 8 + lane % 8) * stride + lane / 8 * 4);
            ESPALIER_UNROLL
            for (int i = 0; i < 4; ++i) b.r[t][i / 2][i % 2] = stored_value(bits[i]);
        }
    }
    __device__ static void load_b(B& b, const float* tile, int stride) {
        const LanePlace place;
        ESPALIER_UNROLL
        for (int t = 0; t < 2; ++t) {
            ESPALIER_UNROLL
            for (int i = 0; i < 4; ++i) {
                const float value = tile[(i / 2 * 8 + 2 * place.pair + i % 2) * stride + t * 8 + place.row];
                b.r[t][i / 2][i % 2] = stored_value(__float_as_uint(value));
            }
        }
    }
    __device__ static void from_accumulators(A& a, const Accumulator& left, const Accumulator& right) {
        ESPALIER_UNROLL
        for (int i = 0; i < 4; ++i) {
            const int from = i % 2 * 2 + i / 2;
            a.r[0][i] = value_of(left.v[from]);
            a.r[1][i] = value_of(right.v[from]);
        }
    }
    __device__ static void multiply(Accumulator& left, Accumulator& right, const A& a, const B& b) {
        ESPALIER_UNROLL
        for (int depth = 0; depth < 2; ++depth) {
            multiply_depth(left, a.r[depth], b.r[0][depth]);
            multiply_depth(right, a.r[depth], b.r[1][depth]);
        }
    }

  private:
    /// A factor as it lies in memory: the tensor cores drop the low bits themselves.
    __device__ static Value stored_value(unsigned bits) {
        if constexpr (split) {
            return value_of(__uint_as_float(bits));
        } else {
            return {{bits}};
        }
    }
    __device__ static Value value_of(float value) {
        Value result;
        result.parts[0] = round_to_tf32(value);
        if constexpr (split) result.parts[1] = round_to_tf32(value - __uint_as_float(result.parts[0]));
        return result;
    }
    __device__ static void multiply_depth(Accumulator& c, const Value (&a)[4], const Value (&b)[2]) {
        if constexpr (split) {  // the small products first
            multiply_parts<1, 0>(c, a, b);
            multiply_parts<0, 1>(c, a, b);
        }
        multiply_parts<0, 0>(c, a, b);
    }
    template <int of_a, int of_b>
    __device__ static void multiply_parts(Accumulator& c, const Value (&a)[4], const Value (&b)[2]) {
        const unsigned left[4] = {a[0].parts[of_a], a[1].parts[of_a], a[2].parts[of_a], a[3].parts[of_a]};
        const unsigned right[2] = {b[0].parts[of_b], b[1].parts[of_b]};
        mma_tf32_instruction(c, left, right);
    }
};
template <>
struct TensorCore<Tf32> : Tf32Core<false> {};
template <>
struct TensorCore<Tf32Split> : Tf32Core<true> {};

}  // namespace espalier::cuda
