// One AdamW step on a panel of weights, with the rounding to the type of the passes and the held mask in the same pass
// over memory.
#include "kernels/cuda/elementwise.cuh"
#include "kernels/cuda/optimizer_rules.h"

namespace espalier {

namespace {

using namespace cuda;

template <typename Rounded, bool held>
struct AdamWElements {
    AdamW rule;
    AdamCorrection corrected;
    float kept;  ///< of a weight, after its decay
    float gradient_scale;
    const float* gradient;
    const std::uint8_t* mask;
    float* average;
    float* square_average;
    float* weight;
    Rounded* rounded;  ///< or null

    template <int count>
    __device__ void apply(std::size_t i) const {
        float g[count], m[count], v[count], w[count];
        load<count>(gradient + i, g);
        load_once<count>(average + i, m);
        load_once<count>(square_average + i, v);
        load_once<count>(weight + i, w);
        std::uint8_t keep[count] = {};
        if constexpr (held) load_mask<count>(mask + i, keep);
        const float gain1 = 1.0F - rule.beta1, gain2 = 1.0F - rule.beta2;
        ESPALIER_UNROLL
        for (int j = 0; j < count; ++j) {
            g[j] *= gradient_scale;
            if constexpr (held) g[j] = keep[j] != 0 ? g[j] : 0.0F;
            m[j] = rule.beta1 * m[j] + gain1 * g[j];
            v[j] = rule.beta2 * v[j] + gain2 * g[j] * g[j];
            w[j] = kept * w[j] - corrected.rate * (m[j] / (sqrtf(v[j]) * corrected.square_root + rule.epsilon));
            if constexpr (held) w[j] = keep[j] != 0 ? w[j] : 0.0F;
        }
        store_once<count>(average + i, m);
        store_once<count>(square_average + i, v);
        store_once<count>(weight + i, w);
        if (rounded != nullptr) store<count>(rounded + i, w);
    }
};

}  // namespace

void cuda::step_rows(cudaStream_t stream, const AdamW& rule, const OptimizerStep& step, const OptimizedRows& rows) {
    const TensorView m = rows.moments[0], v = rows.moments[1];
    const bool aligned =
        are_aligned({rows.gradient.data, m.data, v.data, rows.weight.data, rows.rounded.data, rows.mask.data});
    const float kept = 1.0F - step.learning_rate * rule.weight_decay;
    with_type(rows.rounded.empty() ? DType::f32 : rows.rounded.dtype, [&]<typename T>() {
        const auto run = [&]<bool held>() {
            for_each_element(
                "adamw_step", rows.weight.size(), aligned, stream,
                AdamWElements<T, held>{rule, correction_of(rule, step), kept, step.gradient_scale,
                                       rows.gradient.floats(), held ? rows.mask.mask_bytes() : nullptr, m.floats(),
                                       v.floats(), rows.weight.floats(), reinterpret_cast<T*>(rows.rounded.data)});
        };
        if (rows.mask.empty())
            run.template operator()<false>();
        else
            run.template operator()<true>();
    });
}

}  // namespace espalier
