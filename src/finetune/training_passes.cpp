#include "src/finetune/training_passes.h"

#include "src/base/philox.h"

#include <algorithm>

namespace espalier {

namespace {

/// A counter of its own for draws of epochs, beside those of blocks.
constexpr std::uint32_t draws_of_epochs = 0xE90C4;

}  // namespace

std::vector<RowSegment> TrainingPass::segments(std::size_t sequence_length) const {
    return std::vector<RowSegment>(samples.size(), RowSegment{sequence_length});
}

std::vector<std::int32_t> TrainingPass::ids(std::span<const std::int32_t> of_all, std::size_t sequence_length) const {
    std::vector<std::int32_t> ids;
    ids.reserve(samples.size() * sequence_length);
    for (const std::size_t sample : samples) {
        const auto of_sample = of_all.subspan(sample * sequence_length, sequence_length);
        ids.insert(ids.end(), of_sample.begin(), of_sample.end());
    }
    return ids;
}

std::vector<TrainingPass> passes_of(std::span<const std::size_t> samples, std::size_t sequence_length) {
    const std::size_t at_once = samples_at_once(sequence_length);
    std::vector<TrainingPass> passes;
    for (std::size_t i = 0; i < samples.size(); ++i) {
        if (i % at_once == 0) passes.emplace_back();
        passes.back().samples.push_back(samples[i]);
    }
    return passes;
}

std::vector<std::size_t> samples_of_step(const FinetuneOptions& options, std::size_t step) {
    const std::size_t population = options.training_samples();
    std::vector<std::size_t> samples, order;
    for (std::size_t i = step * options.batch; i < (step + 1) * options.batch; ++i) {
        const std::size_t epoch = i / population;
        if (order.empty() || i % population == 0) {
            order = draw_without_replacement(options.seed, draws_of_epochs, static_cast<std::uint32_t>(epoch),
                                             population, population);
        }
        samples.push_back(order[i % population]);
    }
    return samples;
}

std::vector<std::size_t> held_out_samples(const FinetuneOptions& options) {
    std::vector<std::size_t> samples;
    for (std::size_t sample = options.training_samples(); sample < options.samples; ++sample) samples.push_back(sample);
    return samples;
}

}  // namespace espalier
