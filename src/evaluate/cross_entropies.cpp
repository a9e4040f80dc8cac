#include "src/evaluate/cross_entropies.h"

#include <cmath>

namespace espalier {

CrossEntropies::CrossEntropies(Device& device, std::size_t predictions)
    : device_(device),
      running_max_(make(predictions)),
      running_sum_(make(predictions)),
      target_logit_(make(predictions)) {
    device.start_cross_entropy(running_max_, running_sum_, target_logit_);
}

void CrossEntropies::add(std::size_t first, TensorView logits, std::size_t first_token,
                         std::span<const std::int32_t> targets) {
    const auto part = [&](const Tensor& state) {
        require(first + targets.size() <= state.view().size(), "predictions that were said");
        return TensorView{state.view().data + first * sizeof(float), DType::f32, 1, targets.size()};
    };
    device_.cross_entropy_panel(logits, first_token, targets, part(running_max_), part(running_sum_),
                                part(target_logit_));
}

std::vector<TokenLoss> CrossEntropies::read() const {
    const auto on_host = [&](const Tensor& state) {
        std::vector<float> values(state.view().size());
        device_.copy_to_host(state, values.data());
        return values;
    };
    const std::vector<float> largest = on_host(running_max_), sum = on_host(running_sum_),
                             target = on_host(target_logit_);
    std::vector<TokenLoss> losses;
    losses.reserve(target.size());
    for (std::size_t i = 0; i < target.size(); ++i) {
        const double loss =
            std::log(static_cast<double>(sum[i])) + static_cast<double>(largest[i]) - static_cast<double>(target[i]);
        losses.push_back({loss, target[i] == largest[i]});
    }
    return losses;
}

}  // namespace espalier
