#pragma once
/// Perplexity of a tiny model in float64, from the definition.

#include "tests/support/tiny_model.h"

#include <cmath>
#include <vector>

namespace espalier::support {

/// Mean over windows of the mean cross-entropy of the next-token predictions; the tail is dropped.
inline double reference_loss(const TinyModel& model, const std::vector<std::int32_t>& tokens, std::size_t length) {
    const ModelConfig config = ModelConfig::parse(model.config.dump(), "config.json");
    const BlockLayout layout(config);
    const std::size_t hidden = config.hidden_size, windows = tokens.size() / length;
    const std::vector<float>& embedding = model.tensor("model.embed_tokens.weight").values;
    const std::vector<float>& norm = model.tensor("model.norm.weight").values;
    const std::vector<float>& head = config.tied_head ? embedding : model.tensor("lm_head.weight").values;
    double total = 0;
    for (std::size_t w = 0; w < windows; ++w) {
        std::vector<double> x;
        for (std::size_t t = 0; t < length; ++t) {
            const auto id = static_cast<std::size_t>(tokens[w * length + t]);
            for (std::size_t j = 0; j < hidden; ++j) x.push_back(static_cast<double>(embedding[id * hidden + j]));
        }
        for (std::size_t b = 0; b < config.blocks; ++b) {
            HostBlock block;
            for (const LinearLayer layer : all_linear_layers) {
                block.matrices[index_of(layer)] =
                    model.tensor(checkpoint_name(b, std::string(layout.matrix(layer).name) + ".weight")).values;
            }
            for (const VectorShape& vector : layout.vectors()) {
                block.vectors[vector.vector] = model.tensor(checkpoint_name(b, vector.name)).values;
            }
            x = reference_block(config, block, x, length);
        }
        double window = 0;
        for (std::size_t t = 0; t + 1 < length; ++t) {
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
            window += std::log(sum) - logits[static_cast<std::size_t>(tokens[w * length + t + 1])];
        }
        total += window / static_cast<double>(length - 1);
    }
    return total / static_cast<double>(windows);
}

}  // namespace espalier::support
