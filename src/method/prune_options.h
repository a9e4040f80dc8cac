#pragma once
/// Everything that decides what a pruning run does: one plain struct, filled by the command line, validated once,
/// written whole into the manifest.

#include "kernels/device.h"
#include "src/base/dtype.h"
#include "src/base/index_range.h"
#include "src/base/json.h"
#include "src/base/pruning_pattern.h"
#include "src/method/method.h"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace espalier {

/// c_j = sqrt(sum of squares) over all tokens, or with the mean over samples.
enum class InputNorm { sum, mean };

/// Growth of the learning rate with the mini-batch size B: 1, sqrt(B) or B.
enum class LearningRateScaling { none, sqrt, linear };
std::string_view name_of(LearningRateScaling scaling);

/// How the passes of regional optimisation multiply on a GPU: float32 weights exactly or as TensorFloat-32, or weights
/// rounded to 16 bits. Masters are float32 in all of them, and the CPU computes in float32.
enum class RegionalCompute { float32, tf32, sixteen_bit };
std::string_view name_of(RegionalCompute compute);
/// Throws InputError.
RegionalCompute regional_compute_from_name(std::string_view name);

struct RegionalOptimizationOptions {
    std::size_t samples = 32;                    ///< M, drawn in each round
    std::size_t rounds = 5;                      ///< K
    std::optional<double> learning_rate = 3e-7;  ///< absent: `auto`, searched on the first block
    std::size_t batch = 1;                       ///< samples of an optimiser step
    LearningRateScaling scaling = LearningRateScaling::sqrt;
    bool hold_mask = false;
    RegionalCompute compute = RegionalCompute::tf32;

    /// Type of the weights in the passes of regional optimisation, when the run's weights are of type `run`.
    DType type_of_passes(const Device& device, DType run) const;
    /// The rate of an optimiser step for a searched or given base rate.
    double scaled_rate(double base) const;
};

/// What a reconstruction pulls a block's outputs on the pruned model's hidden states towards: those of the dense block
/// on the same, or those of the dense model, which makes good part of what earlier blocks lost.
enum class ReconstructionTarget { block, dense_stream };
std::string_view name_of(ReconstructionTarget target);
/// Throws InputError.
ReconstructionTarget reconstruction_target_from_name(std::string_view name);

/// What a reconstruction makes small: the squared error of all outputs, or each token's squared error relative to its
/// target. In many models the first token of a sample is thousands of times as large as the others, and has nearly all
/// of the sum.
enum class ReconstructionLoss { sum, token };
std::string_view name_of(ReconstructionLoss loss);
/// Throws InputError.
ReconstructionLoss reconstruction_loss_from_name(std::string_view name);

/// Masked AdamW (0.9, 0.95) on the squared error of a block's outputs, with a linear warm-up and a linear decay of the
/// rate. What is best on the samples that are held out is kept; the start is, too, when nothing is better.
struct ReconstructionOptions {
    std::size_t epochs = 10;
    std::size_t batch = 4;        ///< samples of a step
    double learning_rate = 1e-2;  ///< at its highest, times the root mean square of each matrix's kept weights
    double warm_up = 0.1;         ///< share of the steps in which the rate grows
    ReconstructionTarget target = ReconstructionTarget::dense_stream;
    ReconstructionLoss loss = ReconstructionLoss::token;
};

/// The device of a run, as far as it decides how results are rounded: a run stays with what it began with.
struct ComputedOn {
    bool gpu = false;
    std::string arithmetic;  ///< Device::arithmetic
};

struct PruneOptions {
    std::filesystem::path model, calibration, output;
    Method method = Method::wanda_plus_plus;
    PruningPattern pattern = {2, 4, 0.5};
    std::size_t samples = 128;
    std::size_t sequence_length = 2048;
    std::uint64_t seed = 0;
    double alpha = 100;
    RegionalOptimizationOptions ro;
    ReconstructionOptions reconstruction;
    InputNorm input_norm = InputNorm::sum;
    std::size_t block_groups = 1;
    std::size_t shards = 8;
    DType output_dtype = DType::f32;
    std::optional<IndexRange> only_blocks;  ///< prune only these; the others are copied
    bool fresh = false;

    /// Removed weights stay at zero while the others are optimised: as asked, or because their mask is chosen once.
    bool holds_mask() const { return ro.hold_mask || method.chooses_mask_once(); }
    /// Samples that go through a block in one pass of its optimisation: regional optimisation takes them one by one, a
    /// reconstruction short ones together, since products of few rows are slow. A pass is a leaf of a step's sum.
    std::size_t samples_of_pass() const;
    /// Steps of one pass are taken by the block's owner alone, those of several by all ranks.
    bool owner_steps_alone() const;
    /// Dense hidden states go with the pruned ones from block to block.
    bool keeps_dense_stream() const {
        return method.reconstructs() && reconstruction.target == ReconstructionTarget::dense_stream;
    }
    std::size_t first_pruned_block() const { return only_blocks ? only_blocks->begin : 0; }
    bool prunes(std::size_t block) const { return !only_blocks || only_blocks->contains(block); }
    /// The values that decide the result, for the manifest: equal JSON means equal pruned weights.
    Json deciding_values(const ComputedOn& device) const;
};

}  // namespace espalier
