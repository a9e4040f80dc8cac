// Scores and the choice of weights, fused: scores live in registers only. Small groups (2:4, 4:8 …) are ranked by one
// thread; rows and large groups by one block, which finds the threshold by radix selection and then walks the columns
// in order, so that ties and zeros go from the lower column up.
#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/element.cuh"
#include "kernels/cuda/reduce.cuh"

#include <algorithm>

namespace espalier {

namespace {

using namespace cuda;

constexpr int threads = 256;
using Counter = unsigned long long;  // CUDA's atomicAdd knows this spelling of 64 bits

/// |w| (alpha G + c) with absent terms dropped, as ScoreTerms says.
struct Scorer {
    const float* gradient;
    const float* input_norms;
    float alpha;
    __device__ float operator()(float weight, std::size_t index, std::size_t column) const {
        float score[1] = {weight};
        replace_by_scores<1>(score, index, column);
        return score[0];
    }
    /// The same for `count` weights in a row.
    template <int count>
    __device__ void replace_by_scores(float (&weights)[count], std::size_t index, std::size_t column) const {
        float factors[count], of_gradient[count];
        ESPALIER_UNROLL
        for (int i = 0; i < count; ++i) factors[i] = gradient == nullptr && input_norms == nullptr ? 1.0F : 0.0F;
        if (input_norms != nullptr) load<count>(input_norms + column, factors);
        if (gradient != nullptr) {
            load<count>(gradient + index, of_gradient);
            ESPALIER_UNROLL
            for (int i = 0; i < count; ++i) factors[i] = alpha * of_gradient[i] + factors[i];
        }
        ESPALIER_UNROLL
        for (int i = 0; i < count; ++i) weights[i] = fabsf(weights[i]) * factors[i];
    }
};

template <typename T>
struct Matrix {
    T* weight;
    std::uint8_t* mask;
    std::size_t size, columns;
};

/// Marks the `remove` lowest of `width` scores from `first` on with false.
template <int width, int count>
__device__ void rank_group(const float (&scores)[count], int first, int remove, bool (&keep)[count]) {
    int smaller[width] = {};
    ESPALIER_UNROLL
    for (int j = 1; j < width; ++j) {
        ESPALIER_UNROLL
        for (int i = 0; i < j; ++i) {  // of two equal scores the first is the smaller
            const bool second_is_smaller = scores[first + j] < scores[first + i];
            smaller[i] += second_is_smaller ? 1 : 0;
            smaller[j] += second_is_smaller ? 0 : 1;
        }
    }
    ESPALIER_UNROLL
    for (int i = 0; i < width; ++i) keep[first + i] = smaller[i] >= remove;
}

/// Groups of `width` weights are loaded, scored, ranked and stored by one thread, `count` weights at a time: 16 bytes
/// and more where memory is `aligned`. `width` divides the columns, and `count` does where aligned.
template <int width, bool aligned, typename T>
__global__ void __launch_bounds__(threads)
    mask_groups_kernel(Scorer scorer, Matrix<T> matrix, int remove, Counter* unusable) {
    constexpr int count = aligned && width < wide ? wide : width;
    const std::size_t first = (std::size_t{blockIdx.x} * threads + threadIdx.x) * count;
    unsigned bad = 0;
    if (first < matrix.size) {
        float weights[count], scores[count];
        bool keep[count];
        constexpr int at_once = aligned ? wide : 1;
        ESPALIER_UNROLL
        for (int part = 0; part < count; part += at_once) {
            float values[at_once];
            load<at_once>(matrix.weight + first + part, values);
            ESPALIER_UNROLL
            for (int i = 0; i < at_once; ++i) weights[part + i] = values[i];
            scorer.template replace_by_scores<at_once>(values, first + part, (first + part) % matrix.columns);
            ESPALIER_UNROLL
            for (int i = 0; i < at_once; ++i) {
                scores[part + i] = values[i];
                bad += isfinite(values[i]) ? 0U : 1U;
            }
        }
        ESPALIER_UNROLL
        for (int group = 0; group < count; group += width) rank_group<width, count>(scores, group, remove, keep);
        ESPALIER_UNROLL
        for (int part = 0; part < count; part += at_once) {
            float values[at_once];
            std::uint8_t kept[at_once];
            ESPALIER_UNROLL
            for (int i = 0; i < at_once; ++i) {
                values[i] = keep[part + i] ? weights[part + i] : 0.0F;
                kept[i] = keep[part + i] ? 1 : 0;
            }
            store<at_once>(matrix.weight + first + part, values);
            store_mask<at_once>(matrix.mask + first + part, kept);
        }
    }
    bad = reduce_in_warp(bad, Sum());
    if (threadIdx.x % warp_size == 0 && bad != 0) atomicAdd(unusable, Counter{bad});
}

/// One run of `count` weights: a row, or a large group. Non-negative floats are ordered like their bits.
template <typename T>
class RunSelection {
  public:
    __device__ RunSelection(const Scorer& scorer, const Matrix<T>& matrix, std::size_t first, unsigned count)
        : scorer_(scorer), matrix_(matrix), first_(first), column_(first % matrix.columns), count_(count) {}

    __device__ unsigned key(unsigned i) const {
        const std::size_t index = first_ + i;
        return __float_as_uint(scorer_(to_float(matrix_.weight[index]), index, column_ + i));
    }

    __device__ unsigned count_unusable() const {
        unsigned bad = 0;
        for (unsigned i = threadIdx.x; i < count_; i += threads) bad += isfinite(__uint_as_float(key(i))) ? 0U : 1U;
        return reduce_in_block<threads>(bad, 0U, Sum());
    }

    /// Finds the key of rank `remove` (from 1, ascending) digit by digit. Afterwards all keys below `threshold` go and
    /// the first `equal_to_remove` of those equal to it.
    __device__ void find_threshold(unsigned remove, unsigned* histogram, unsigned* chosen, unsigned& threshold,
                                   unsigned& equal_to_remove) const {
        constexpr unsigned digits = 256;
        static_assert(digits == threads);
        threshold = 0;
        equal_to_remove = remove;
        for (int shift = 24; shift >= 0; shift -= 8) {
            histogram[threadIdx.x] = 0;
            __syncthreads();
            for (unsigned i = threadIdx.x; i < count_; i += threads) {
                const unsigned k = key(i);
                const bool in_question = shift == 24 || (k >> (shift + 8)) == (threshold >> (shift + 8));
                if (in_question) atomicAdd(&histogram[k >> shift & (digits - 1)], 1U);
            }
            __syncthreads();
            if (threadIdx.x == 0) {
                unsigned digit = 0, left = equal_to_remove;
                while (left > histogram[digit]) left -= histogram[digit++];
                chosen[0] = digit;
                chosen[1] = left;
            }
            __syncthreads();
            threshold |= chosen[0] << shift;
            equal_to_remove = chosen[1];
        }
    }

    /// Writes mask and weights; columns in order, a tile of one column a thread at a time.
    __device__ void apply(unsigned remove, unsigned threshold, unsigned equal_to_remove, unsigned* of_warp) const {
        const unsigned lane = threadIdx.x % warp_size, warp = threadIdx.x / warp_size;
        unsigned equal_before = 0;
        for (unsigned tile = 0; tile < count_; tile += threads) {
            const unsigned i = tile + threadIdx.x;
            const unsigned k = i < count_ ? key(i) : ~0U;
            const bool equal = i < count_ && remove > 0 && k == threshold;
            const unsigned equal_in_warp = __ballot_sync(all_lanes, equal);
            if (lane == 0) of_warp[warp] = static_cast<unsigned>(__popc(equal_in_warp));
            __syncthreads();
            unsigned rank = equal_before + static_cast<unsigned>(__popc(equal_in_warp & ((1U << lane) - 1U)));
            for (unsigned w = 0; w < threads / warp_size; ++w) {
                if (w < warp) rank += of_warp[w];
                equal_before += of_warp[w];
            }
            __syncthreads();
            if (i >= count_) continue;
            const bool goes = remove > 0 && (k < threshold || (equal && rank < equal_to_remove));
            matrix_.mask[first_ + i] = goes ? 0 : 1;
            if (goes) matrix_.weight[first_ + i] = from_float<T>(0.0F);
        }
    }

  private:
    const Scorer& scorer_;
    const Matrix<T>& matrix_;
    std::size_t first_, column_;
    unsigned count_;
};

template <typename T>
__global__ void __launch_bounds__(threads)
    mask_runs_kernel(Scorer scorer, Matrix<T> matrix, unsigned count, unsigned remove, Counter* unusable) {
    ESPALIER_SHARED_ARRAY(unsigned, histogram, 256);
    ESPALIER_SHARED_ARRAY(unsigned, chosen, 2);
    ESPALIER_SHARED_ARRAY(unsigned, of_warp, threads / warp_size);
    const RunSelection<T> run(scorer, matrix, std::size_t{blockIdx.x} * count, count);
    const unsigned bad = run.count_unusable();
    if (bad != 0) {  // the same for the whole block
        if (threadIdx.x == 0) atomicAdd(unusable, Counter{bad});
        return;
    }
    unsigned threshold = 0, equal_to_remove = 0;
    if (remove > 0) run.find_threshold(remove, histogram, chosen, threshold, equal_to_remove);
    run.apply(remove, threshold, equal_to_remove, of_warp);
}

}  // namespace

void CudaDevice::score_and_mask(const ScoreTerms& terms, const PruningPattern& pattern, TensorView weight,
                                TensorView mask, TensorView unusable) {
    require(mask.size() == weight.size(), "mask of score_and_mask");
    require(terms.gradient.empty() || terms.gradient.size() == weight.size(), "gradient of score_and_mask");
    require(terms.input_norms.empty() || terms.input_norms.size() == weight.columns, "norms of score_and_mask");
    require(!pattern.structured() || weight.columns % pattern.group == 0, "a group size that divides the width");
    if (weight.size() == 0) return;
    const Scorer scorer{terms.gradient.empty() ? nullptr : terms.gradient.floats(),
                        terms.input_norms.empty() ? nullptr : terms.input_norms.floats(), terms.alpha};
    auto* const count = reinterpret_cast<Counter*>(unusable.counts());
    const std::size_t group = pattern.structured() ? pattern.group : weight.columns;
    const std::size_t remove =
        pattern.structured() ? pattern.group - pattern.keep : pattern.removed_per_row(weight.columns);
    with_type(weight.dtype, [&]<typename T>() {
        const Matrix<T> matrix{as<T>(weight), mask.mask_bytes(), weight.size(), weight.columns};
        const bool aligned = weight.columns % std::max<std::size_t>(group, wide) == 0 &&
                             are_aligned({weight.data, mask.data, terms.gradient.data, terms.input_norms.data});
        const auto by_thread = [&]<int width>() {
            const std::size_t per_thread = aligned ? std::max(width, wide) : width;
            const std::size_t blocks = (weight.size() / per_thread + threads - 1) / threads;
            launch("score_and_mask", aligned ? mask_groups_kernel<width, true, T> : mask_groups_kernel<width, false, T>,
                   {to_unsigned(blocks), threads}, stream_, scorer, matrix, static_cast<int>(remove), count);
        };
        if (group == 4)
            by_thread.template operator()<4>();
        else if (group == 8)
            by_thread.template operator()<8>();
        else if (group == 16)
            by_thread.template operator()<16>();
        else
            launch("score_and_mask", mask_runs_kernel<T>, {to_unsigned(weight.size() / group), threads}, stream_,
                   scorer, matrix, to_unsigned(group), to_unsigned(remove), count);
    });
}

}  // namespace espalier
