// One RMSprop step on a panel of weights, with the rounding to the type of the passes and the held mask in the same
// pass over memory. Called while the gradient's panel is in the L2 cache, where what it reads and writes itself must
// not push the rest of the panel out.
#include "kernels/cuda/elementwise.cuh"
#include "kernels/cuda/optimizer_rules.h"

namespace espalier {

namespace {

using namespace cuda;

template <typename Rounded, bool held>
struct Step {
    Rmsprop rule;
    float learning_rate, gradient_scale;
    const float* gradient;
    const std::uint8_t* mask;
    float* square_average;
    float* weight;
    Rounded* rounded;  ///< or null

    template <int count>
    __device__ void apply(std::size_t i) const {
        float g[count], v[count], w[count];
        load<count>(gradient + i, g);
        load_once<count>(square_average + i, v);
        load_once<count>(weight + i, w);
        std::uint8_t keep[count] = {};
        if constexpr (held) load_mask<count>(mask + i, keep);
        const float gain = 1.0F - rule.decay;
        ESPALIER_UNROLL
        for (int j = 0; j < count; ++j) {
            g[j] *= gradient_scale;
            if constexpr (held) g[j] = keep[j] != 0 ? g[j] : 0.0F;
            v[j] = rule.decay * v[j] + gain * g[j] * g[j];
            w[j] -= learning_rate * g[j] / (sqrtf(v[j]) + rule.epsilon);
            if constexpr (held) w[j] = keep[j] != 0 ? w[j] : 0.0F;
        }
        store_once<count>(square_average + i, v);
        store_once<count>(weight + i, w);
        if (rounded != nullptr) store<count>(rounded + i, w);
    }
};

}  // namespace

void cuda::step_rows(cudaStream_t stream, const Rmsprop& rule, const OptimizerStep& step, const OptimizedRows& rows) {
    const TensorView v = rows.moments[0];
    const bool aligned = are_aligned({rows.gradient.data, v.data, rows.weight.data, rows.rounded.data, rows.mask.data});
    with_type(rows.rounded.empty() ? DType::f32 : rows.rounded.dtype, [&]<typename T>() {
        const auto run = [&]<bool held>() {
            for_each_element("rmsprop_step", rows.weight.size(), aligned, stream,
                             Step<T, held>{rule, step.learning_rate, step.gradient_scale, rows.gradient.floats(),
                                           held ? rows.mask.mask_bytes() : nullptr, v.floats(), rows.weight.floats(),
                                           reinterpret_cast<T*>(rows.rounded.data)});
        };
        if (rows.mask.empty())
            run.template operator()<false>();
        else
            run.template operator()<true>();
    });
}

}  // namespace espalier
