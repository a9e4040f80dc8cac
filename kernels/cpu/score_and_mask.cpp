// Scores of a row and the choice of its weights, fused: a row's scores exist only in a thread's scratch.
#include "kernels/cpu/cpu_device.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/selection.h"

#include <cmath>
#include <vector>

namespace espalier {

namespace {

struct RowScores {
    std::vector<float> scores;
    std::vector<std::uint64_t> keys;
};

void score_row(const ScoreTerms& terms, const float* weight, std::size_t row, std::size_t columns, float* scores) {
    const float* const norms = terms.input_norms.empty() ? nullptr : terms.input_norms.floats();
    const float* const gradient = terms.gradient.empty() ? nullptr : terms.gradient.floats() + row * columns;
    for (std::size_t j = 0; j < columns; ++j) {
        float factor = norms == nullptr && gradient == nullptr ? 1.0F : 0.0F;
        if (norms != nullptr) factor = norms[j];
        if (gradient != nullptr) factor = terms.alpha * gradient[j] + factor;
        scores[j] = std::fabs(weight[j]) * factor;
    }
}

/// Small groups: an element goes when fewer than `remove` of its group come before it, by score and then by column.
/// `fixed_group` is the size of a group where the compiler shall know it, else 0.
template <std::size_t fixed_group>
void mark_groups(const float* scores, std::size_t columns, std::size_t any_group, std::size_t remove,
                 std::uint8_t* keep) {
    const std::size_t group = fixed_group != 0 ? fixed_group : any_group;
    for (std::size_t first = 0; first < columns; first += group) {
        const float* const of_group = scores + first;
        for (std::size_t i = 0; i < group; ++i) {
            unsigned before = 0;
            for (std::size_t j = 0; j < i; ++j) before += of_group[j] <= of_group[i] ? 1U : 0U;
            for (std::size_t j = i + 1; j < group; ++j) before += of_group[j] < of_group[i] ? 1U : 0U;
            keep[first + i] = before >= remove ? 1 : 0;
        }
    }
}

void mark_run(const float* scores, std::size_t count, std::size_t remove, std::vector<std::uint64_t>& keys,
              std::uint8_t* keep) {
    keys.resize(count);
    for (std::size_t j = 0; j < count; ++j) keys[j] = cpu::removal_key(scores[j], j);
    cpu::mark_smallest(keys, remove, keep);
}

std::size_t count_unusable(const std::vector<float>& scores, std::size_t columns) {
    std::size_t unusable = 0;
    for (std::size_t j = 0; j < columns; ++j) unusable += std::isfinite(scores[j]) ? 0U : 1U;
    return unusable;
}

}  // namespace

void CpuDevice::score_and_mask(const ScoreTerms& terms, const PruningPattern& pattern, TensorView weight,
                               TensorView mask, TensorView unusable_scores) {
    require(mask.size() == weight.size(), "mask of score_and_mask");
    require(terms.gradient.empty() || terms.gradient.size() == weight.size(), "gradient of score_and_mask");
    require(terms.input_norms.empty() || terms.input_norms.size() == weight.columns, "norms of score_and_mask");
    const std::size_t columns = weight.columns;
    require(!pattern.structured() || columns % pattern.group == 0, "a group size that divides the width");
    const std::size_t group = pattern.structured() ? pattern.group : columns;
    const std::size_t remove = pattern.structured() ? pattern.group - pattern.keep : pattern.removed_per_row(columns);
    constexpr std::size_t small_group = 16;
    *unusable_scores.counts() += cpu::parallel_sum<std::size_t>(
        weight.rows, cpu::rows_per_chunk(columns), [&](std::size_t begin, std::size_t end) {
            RowScores scratch;
            scratch.scores.resize(columns);
            std::size_t unusable = 0;
            for (std::size_t row = begin; row < end; ++row) {
                float* const w = weight.floats() + row * columns;
                std::uint8_t* const keep = mask.mask_bytes() + row * columns;
                score_row(terms, w, row, columns, scratch.scores.data());
                const std::size_t row_unusable = count_unusable(scratch.scores, columns);
                unusable += row_unusable;
                if (row_unusable != 0) continue;
                const float* const scores = scratch.scores.data();
                if (group == 4) {
                    mark_groups<4>(scores, columns, group, remove, keep);
                } else if (group == 8) {
                    mark_groups<8>(scores, columns, group, remove, keep);
                } else if (group <= small_group) {
                    mark_groups<0>(scores, columns, group, remove, keep);
                } else {
                    for (std::size_t first = 0; first < columns; first += group) {
                        mark_run(scores + first, group, remove, scratch.keys, keep + first);
                    }
                }
                for (std::size_t j = 0; j < columns; ++j) w[j] = keep[j] != 0 ? w[j] : 0.0F;
            }
            return unusable;
        });
}

}  // namespace espalier
