#pragma once
/// What an optimiser does to a weight and to what it keeps of it. A rule is a struct here, and the function of its file
/// in each backend (kernels/cpu, kernels/cuda).

#include "src/base/error.h"
#include "src/base/tensor.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <variant>

namespace espalier {

/// v <- decay v + (1 - decay) g^2; w <- w - rate g / (sqrt(v) + epsilon) (Tieleman & Hinton 2012).
struct Rmsprop {
    static constexpr std::size_t moments = 1;  ///< v
    float decay = 0.99F;
    float epsilon = 1e-8F;
};

/// m <- beta1 m + (1 - beta1) g; v <- beta2 v + (1 - beta2) g^2;
/// w <- w - rate (m' / (sqrt(v') + epsilon) + weight_decay w), with m' = m / (1 - beta1^t) and v' = v / (1 - beta2^t)
/// in step t (Kingma & Ba 2015; Loshchilov & Hutter 2019).
struct AdamW {
    static constexpr std::size_t moments = 2;  ///< m, v
    float beta1 = 0.9F, beta2 = 0.95F;
    float epsilon = 1e-8F;
    float weight_decay = 0;
};

using OptimizerRule = std::variant<Rmsprop, AdamW>;
/// Values that the rule keeps for each weight.
inline std::size_t moments_of(const OptimizerRule& rule) {
    return std::visit([](const auto& known) { return known.moments; }, rule);
}
inline constexpr std::size_t most_moments = 2;
static_assert(Rmsprop::moments <= most_moments && AdamW::moments <= most_moments);

struct OptimizerStep {
    OptimizerRule rule;
    float learning_rate = 0;
    std::size_t number = 1;    ///< of this step since the moments were zero, for rules that correct their bias
    float gradient_scale = 1;  ///< the rule's g is the given gradient times this
};

/// What corrects the moments' bias in a step of AdamW: w <- w - rate m / (square_root sqrt(v) + epsilon).
struct AdamCorrection {
    float rate, square_root;
};

inline AdamCorrection correction_of(const AdamW& rule, const OptimizerStep& step) {
    require(step.number > 0, "steps are counted from 1");
    const auto number = static_cast<double>(step.number);
    const double first = 1 - std::pow(static_cast<double>(rule.beta1), number);
    const double second = 1 - std::pow(static_cast<double>(rule.beta2), number);
    return {static_cast<float>(static_cast<double>(step.learning_rate) / first),
            static_cast<float>(1 / std::sqrt(second))};
}

/// Of the highest rate, in step `step` of steps 0 …: linear growth in a share `warm_up` of them, then linearly to 0.
inline double share_of_rate(std::size_t step, std::size_t steps, double warm_up) {
    const auto total = static_cast<double>(steps), done = static_cast<double>(step);
    const double warm = std::ceil(warm_up * total);
    if (done < warm) return (done + 1) / warm;
    return (total - done) / std::max(1.0, total - warm);
}

/// Rows of a matrix that are stepped, with all that belongs to them; float32 but for the mask and the rounded copy.
struct OptimizedRows {
    TensorView gradient;
    TensorView mask;  ///< uint8, or empty; with it gradient and weight of removed weights are zero
    std::array<TensorView, most_moments> moments;  ///< as many as the rule keeps
    TensorView weight;
    TensorView rounded;  ///< gets the new weights in its own type, when it is not empty
};

/// Throws BugError when the shapes do not fit each other, or moments of the rule are missing.
inline void check_shapes(const OptimizerStep& step, const OptimizedRows& rows) {
    const auto fits = [&](TensorView other) { return other.size() == rows.weight.size(); };
    require(fits(rows.gradient), "shapes of optimizer_step");
    for (std::size_t m = 0; m < moments_of(step.rule); ++m) require(fits(rows.moments[m]), "moments of optimizer_step");
    require(rows.mask.empty() || fits(rows.mask), "mask of optimizer_step");
    require(rows.rounded.empty() || fits(rows.rounded), "rounded weights of optimizer_step");
}

}  // namespace espalier
