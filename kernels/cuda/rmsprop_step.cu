// One RMSprop step on a panel of weights, with the rounding to the type of the passes and the held mask in the same
// pass over memory. Called while the gradient's panel is in the L2 cache, where what it reads and writes itself must
// not push the rest of the panel out.
#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/elementwise.cuh"

namespace espalier {

namespace {

using namespace cuda;

template <typename Rounded, bool held>
struct Step {
    RmspropStep step;
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
        const float gain = 1.0F - step.decay;
        ESPALIER_UNROLL
        for (int j = 0; j < count; ++j) {
            if constexpr (held) g[j] = keep[j] != 0 ? g[j] : 0.0F;
            v[j] = step.decay * v[j] + gain * g[j] * g[j];
            w[j] -= step.learning_rate * g[j] / (sqrtf(v[j]) + step.epsilon);
            if constexpr (held) w[j] = keep[j] != 0 ? w[j] : 0.0F;
        }
        store_once<count>(square_average + i, v);
        store_once<count>(weight + i, w);
        if (rounded != nullptr) store<count>(rounded + i, w);
    }
};

}  // namespace

void CudaDevice::rmsprop_step(const RmspropStep& step, TensorView gradient, TensorView mask, TensorView square_average,
                              TensorView weight, TensorView rounded) {
    require(gradient.size() == weight.size() && square_average.size() == weight.size(), "shapes of rmsprop_step");
    require(mask.empty() || mask.size() == weight.size(), "mask of rmsprop_step");
    require(rounded.empty() || rounded.size() == weight.size(), "rounded weights of rmsprop_step");
    const bool aligned = are_aligned({gradient.data, square_average.data, weight.data, rounded.data, mask.data});
    with_type(rounded.empty() ? DType::f32 : rounded.dtype, [&]<typename T>() {
        const auto run = [&]<bool held>() {
            for_each_element(
                "rmsprop_step", weight.size(), aligned, stream_,
                Step<T, held>{step, gradient.floats(), held ? mask.mask_bytes() : nullptr, square_average.floats(),
                              weight.floats(), reinterpret_cast<T*>(rounded.data)});
        };
        if (mask.empty())
            run.template operator()<false>();
        else
            run.template operator()<true>();
    });
}

}  // namespace espalier
