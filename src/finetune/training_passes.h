#pragma once
/// Which samples a step takes, and which of them go through the model together. Nothing here depends on the ranks.

#include "src/finetune/finetune_options.h"
#include "src/model/block_half.h"
#include "src/samples/samples_at_once.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace espalier {

/// Samples that go through the model one after the other in one pass: short ones together, since products of few rows
/// are slow. A pass is computed whole by one rank, and its gradient is one leaf of every sum.
struct TrainingPass {
    std::vector<std::size_t> samples;

    std::vector<RowSegment> segments(std::size_t sequence_length) const;
    std::vector<std::int32_t> ids(std::span<const std::int32_t> of_all, std::size_t sequence_length) const;
};

/// At most samples_at_once in each.
std::vector<TrainingPass> passes_of(std::span<const std::size_t> samples, std::size_t sequence_length);

/// The samples of step `step`: the training samples are taken in a new order in each epoch, one epoch after the other.
std::vector<std::size_t> samples_of_step(const FinetuneOptions& options, std::size_t step);
std::vector<std::size_t> held_out_samples(const FinetuneOptions& options);

}  // namespace espalier
