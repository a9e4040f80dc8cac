#pragma once
/// How likely a tiny model finds tokens, in float64, from the definition.

#include "tests/support/tiny_model.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

namespace espalier::support {

struct ReferencePrediction {
    double loss = 0;           ///< -log of the token's probability
    bool most_likely = false;  ///< no token is likelier
};

/// Of each token of a sequence but the first.
inline std::vector<ReferencePrediction> reference_predictions(const TinyModel& model,
                                                              std::span<const std::int32_t> ids) {
    const ModelConfig config = ModelConfig::parse(model.config.dump(), "config.json");
    const BlockLayout layout(config);
    const std::size_t hidden = config.hidden_size;
    const std::vector<float>& embedding = model.tensor(layout.outer_name(OuterTensor::embedding)).values;
    const std::vector<float>& norm = model.tensor(layout.outer_name(OuterTensor::final_norm)).values;
    const std::vector<float>& head = model.has(layout.outer_name(OuterTensor::head))
                                         ? model.tensor(layout.outer_name(OuterTensor::head)).values
                                         : embedding;
    std::vector<double> x;
    for (const std::int32_t token : ids) {
        const auto id = static_cast<std::size_t>(token);
        for (std::size_t j = 0; j < hidden; ++j) x.push_back(static_cast<double>(embedding[id * hidden + j]));
    }
    for (std::size_t b = 0; b < config.blocks.size(); ++b) {
        x = reference_block(config, model.block(layout, b), x, ids.size(), b);
    }
    std::vector<ReferencePrediction> predictions;
    for (std::size_t t = 0; t + 1 < ids.size(); ++t) {
        double square = 0;
        for (std::size_t j = 0; j < hidden; ++j) square += x[t * hidden + j] * x[t * hidden + j];
        const double inverse =
            1 / std::sqrt(square / static_cast<double>(hidden) + static_cast<double>(config.rms_norm_epsilon));
        std::vector<double> logits(config.vocabulary);
        double sum = 0;
        for (std::size_t v = 0; v < logits.size(); ++v) {
            for (std::size_t j = 0; j < hidden; ++j) {
                logits[v] += x[t * hidden + j] * inverse * static_cast<double>(norm[j]) *
                             static_cast<double>(head[v * hidden + j]);
            }
            sum += std::exp(logits[v]);
        }
        const double of_target = logits[static_cast<std::size_t>(ids[t + 1])];
        predictions.push_back({std::log(sum) - of_target, of_target == std::ranges::max(logits)});
    }
    return predictions;
}

/// Mean over windows of the mean cross-entropy of the next-token predictions; the tail is dropped.
inline double reference_loss(const TinyModel& model, const std::vector<std::int32_t>& tokens, std::size_t length) {
    const std::size_t windows = tokens.size() / length;
    double total = 0;
    for (std::size_t w = 0; w < windows; ++w) {
        double window = 0;
        for (const ReferencePrediction& one :
             reference_predictions(model, std::span(tokens).subspan(w * length, length))) {
            window += one.loss;
        }
        total += window / static_cast<double>(length - 1);
    }
    return total / static_cast<double>(windows);
}

}  // namespace espalier::support
