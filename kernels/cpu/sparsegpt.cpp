// SparseGPT (Frantar & Alistarh 2023): the inverse Gram factor and the column sweep with error feedback.
#include "kernels/cpu/blas.h"
#include "kernels/cpu/cpu_device.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/selection.h"

#include <algorithm>
#include <cmath>
#include <vector>

// LAPACK's own symbols, which OpenBLAS exports: its headers declare them only under names that clash with <complex>.
extern "C" {
void dpotrf_(const char* triangle, const blasint* n, double* a, const blasint* stride, blasint* info);
void dpotri_(const char* triangle, const blasint* n, double* a, const blasint* stride, blasint* info);
}

namespace espalier {

using cpu::to_blas;

namespace {

/// Columns that are swept before the error reaches the rest: 128, or the largest multiple of M not above it.
std::size_t sweep_block(const PruningPattern& pattern) {
    constexpr std::size_t block = 128;
    if (!pattern.structured()) return block;
    return std::max<std::size_t>(1, block / pattern.group) * pattern.group;
}

/// Chooses among `count` columns starting at `first` by W^2 / U_jj^2. Returns the number of non-finite scores.
std::size_t choose(const float* weights, const float* diagonal, std::size_t count, std::size_t remove,
                   std::vector<std::uint64_t>& keys, std::uint8_t* keep) {
    keys.resize(count);
    std::size_t unusable = 0;
    for (std::size_t j = 0; j < count; ++j) {
        const float ratio = weights[j] / diagonal[j];
        const float score = ratio * ratio;
        unusable += std::isfinite(score) ? 0U : 1U;
        keys[j] = cpu::removal_key(score, j);
    }
    if (unusable == 0) cpu::mark_smallest(keys, remove, keep);
    return unusable;
}

/// Rows [begin, end) of one sweep; every row is independent of the others.
class RowSweep {
  public:
    RowSweep(TensorView factor, const PruningPattern& pattern, SweepMask origin, TensorView weight, TensorView mask)
        : factor_(factor),
          pattern_(pattern),
          chooses_(origin == SweepMask::chosen),
          weight_(weight),
          mask_(mask),
          diagonal_(factor.rows) {
        for (std::size_t j = 0; j < factor.rows; ++j) diagonal_[j] = factor.floats()[j * factor.columns + j];
    }

    std::size_t run(std::size_t begin, std::size_t end) const {
        const std::size_t n = weight_.columns, block = sweep_block(pattern_);
        std::vector<float> errors((end - begin) * block);
        std::vector<std::uint64_t> keys;
        std::size_t unusable = 0;
        for (std::size_t first = 0; first < n; first += block) {
            const std::size_t last = std::min(n, first + block);
            for (std::size_t row = begin; row < end; ++row) {
                unusable += sweep_columns(row, first, last, errors.data() + (row - begin) * block, keys);
            }
            if (last == n || unusable != 0) continue;
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, to_blas(end - begin), to_blas(n - last),
                        to_blas(last - first), -1.0F, errors.data(), to_blas(block),
                        factor_.floats() + first * n + last, to_blas(n), 1.0F, weight_.floats() + begin * n + last,
                        to_blas(n));
        }
        return unusable;
    }

  private:
    std::size_t sweep_columns(std::size_t row, std::size_t first, std::size_t last, float* errors,
                              std::vector<std::uint64_t>& keys) const {
        const std::size_t n = weight_.columns;
        float* const w = weight_.floats() + row * n;
        std::uint8_t* const keep = mask_.mask_bytes() + row * n;
        std::size_t unusable = 0;
        if (chooses_ && !pattern_.structured()) {
            // Exactly floor(in x sparsity) a row in total: each block takes what the running floor grows by.
            const std::size_t remove = pattern_.removed_per_row(last) - pattern_.removed_per_row(first);
            unusable += choose(w + first, diagonal_.data() + first, last - first, remove, keys, keep + first);
        }
        for (std::size_t j = first; j < last && unusable == 0; ++j) {
            if (chooses_ && pattern_.structured() && j % pattern_.group == 0) {
                unusable +=
                    choose(w + j, diagonal_.data() + j, pattern_.group, pattern_.group - pattern_.keep, keys, keep + j);
                if (unusable != 0) break;
            }
            const float* const u = factor_.floats() + j * n;
            const float error = keep[j] != 0 ? 0.0F : w[j] / diagonal_[j];
            errors[j - first] = error;
            if (keep[j] != 0) continue;
            w[j] = 0.0F;
#pragma omp simd
            for (std::size_t k = j + 1; k < last; ++k) w[k] -= error * u[k];
        }
        return unusable;
    }

    TensorView factor_;
    PruningPattern pattern_;
    bool chooses_;
    TensorView weight_;
    TensorView mask_;
    std::vector<float> diagonal_;
};

/// a <- upper Cholesky factor of a^-1, in the upper triangle. False when a is not positive definite.
bool invert_and_factor(std::vector<double>& a, blasint n) {
    // LAPACK is column-major: its lower triangle is our upper one, and its L L^T is our U^T U.
    const cpu::OneThread alone;  // the bits of a threaded factorisation depend on the number of threads
    const char triangle = 'L';
    blasint info = 0;
    dpotrf_(&triangle, &n, a.data(), &n, &info);
    if (info != 0) return false;
    dpotri_(&triangle, &n, a.data(), &n, &info);
    if (info != 0) return false;
    dpotrf_(&triangle, &n, a.data(), &n, &info);
    return info == 0;
}

}  // namespace

bool CpuDevice::factor_inverse_gram(float damping, TensorView gram, TensorView dead_inputs) {
    require(gram.rows == gram.columns && dead_inputs.size() == gram.rows, "shapes of factor_inverse_gram");
    const std::size_t n = gram.rows;
    // float64: with 1 % damping the matrix's condition costs float32 about half of its digits.
    std::vector<double> a(gram.floats(), gram.floats() + n * n);
    double trace = 0;
    for (std::size_t j = 0; j < n; ++j) {
        const bool dead = a[j * n + j] == 0;
        dead_inputs.mask_bytes()[j] = dead ? 1 : 0;
        if (dead) a[j * n + j] = 1;
        trace += a[j * n + j];
    }
    const double shift = static_cast<double>(damping) * trace / static_cast<double>(n);
    for (std::size_t j = 0; j < n; ++j) a[j * n + j] += shift;
    for (std::size_t i = 0; i < n; ++i) {  // LAPACK does not notice NaN
        for (std::size_t j = i; j < n; ++j) {
            if (!std::isfinite(a[i * n + j])) return false;
        }
    }
    if (!invert_and_factor(a, to_blas(n))) return false;
    for (std::size_t i = 0; i < n; ++i) {
        for (std::size_t j = 0; j < n; ++j) gram.floats()[i * n + j] = j < i ? 0.0F : static_cast<float>(a[i * n + j]);
    }
    const auto cube = static_cast<double>(n) * static_cast<double>(n) * static_cast<double>(n);
    flops_ += cube / 3 + 2 * cube / 3 + cube / 3;
    return true;
}

void CpuDevice::sparsegpt_sweep(TensorView factor, TensorView dead_inputs, const PruningPattern& pattern,
                                SweepMask origin, TensorView weight, TensorView mask, TensorView unusable) {
    const std::size_t n = weight.columns;
    require(factor.rows == n && factor.columns == n && mask.size() == weight.size() && dead_inputs.size() == n,
            "shapes of sparsegpt_sweep");
    require(!pattern.structured() || n % pattern.group == 0, "a group size that divides the width");
    const RowSweep sweep(factor, pattern, origin, weight, mask);
    *unusable.counts() += cpu::parallel_sum<std::size_t>(weight.rows, 64, [&](std::size_t begin, std::size_t end) {
        for (std::size_t row = begin; row < end; ++row) {
            for (std::size_t j = 0; j < n; ++j) {
                if (dead_inputs.mask_bytes()[j] != 0) weight.floats()[row * n + j] = 0.0F;
            }
        }
        return sweep.run(begin, end);
    });
    flops_ += static_cast<double>(weight.size()) * static_cast<double>(n);
}

}  // namespace espalier
