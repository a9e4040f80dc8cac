#pragma once
/// The optimisers' rules on the CPU, each in the file of its name. The rounded copy is not their business.

#include "kernels/optimizer_step.h"

#include <bit>
#include <cstdint>

namespace espalier::cpu {

void step_rows(const Rmsprop& rule, const OptimizerStep& step, const OptimizedRows& rows);
void step_rows(const AdamW& rule, const OptimizerStep& step, const OptimizedRows& rows);

/// keep ? value : +0.0, without a branch.
inline float kept_or_zero(std::uint8_t keep, float value) {
    const std::uint32_t bits = keep != 0 ? ~std::uint32_t{0} : 0;
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(value) & bits);
}

}  // namespace espalier::cpu
