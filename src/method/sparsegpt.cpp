#include "src/method/sparsegpt.h"

#include "kernels/device_numbers.h"
#include "mpi/ordered_sum.h"
#include "mpi/tensor_collectives.h"
#include "src/base/error.h"
#include "src/blocks/weight_partition.h"
#include "src/method/block_masker.h"
#include "src/samples/sample_reader.h"

#include <array>

namespace espalier {

namespace {

/// Adds x^T x of one of a block's inputs into a shard's Gram matrix (upper triangle).
class GramObserver final : public LinearInputObserver {
  public:
    GramObserver(Device& device, LinearInput wanted) : device_(device), wanted_(wanted) {}
    void begin_shard(TensorView gram) { gram_ = gram; }
    void observe(LinearInput input, TensorView x) override {
        if (input == wanted_) device_.accumulate_gram(x, gram_);
    }

  private:
    Device& device_;
    LinearInput wanted_;
    TensorView gram_;
};

/// Completes a matrix on `owner`, of which every rank holds the part [offsets[rank], offsets[rank + 1]).
void gather_to(Communicator& group, int owner, TensorView matrix, const PartOffsets& offsets) {
    const auto part_of_rank = [&](int rank, int peer) {
        const auto r = static_cast<std::size_t>(rank);
        return Message{peer, matrix.data + offsets[r] * sizeof(float), (offsets[r + 1] - offsets[r]) * sizeof(float)};
    };
    std::vector<Message> sends, receives;
    if (group.rank() != owner) sends.push_back(part_of_rank(group.rank(), owner));
    for (int r = 0; r < group.size() && group.rank() == owner; ++r) {
        if (r != owner) receives.push_back(part_of_rank(r, r));
    }
    group.start_exchange(sends, receives)->finish();
}

/// Sum over all samples of the Gram matrix of one input (upper triangle); complete on the block's owner, which factors
/// it. The block is computed only as far as that input.
Tensor sum_gram(const GroupContext& context, std::size_t block, LinearInput input, DecoderBlock& decoder,
                const HiddenStates& x, const BlockWeights& weights) {
    const std::size_t width = context.layout.input(input).width;
    PartOffsets rows;
    for (std::size_t r = 0; r < context.ranks(); ++r) rows.push_back(part_of(width, context.ranks(), r).begin * width);
    rows.push_back(width * width);

    OrderedSum sum(context.device, context.group, width * width, context.topology.shard_offsets(context.block_group),
                   "sums of the Gram matrix");
    GramObserver observer(context.device, input);
    const IndexRange shards = context.topology.shards_of(context.block_group, context.me());
    SampleReader inputs(context.device, x, all_samples_of(x));
    for (std::size_t shard = shards.begin; shard < shards.end; ++shard) {
        observer.begin_shard(sum.begin_leaf().reshaped(width, width));
        const IndexRange samples = context.topology.samples_of_shard(shard);
        for (std::size_t n = samples.begin; n < samples.end; ++n)
            decoder.observe_inputs(weights, inputs.next(), input, observer);
        sum.end_leaf();
    }
    sum.start_reduce(rows);
    Tensor gram = context.device.make_tensor(DType::f32, width, width, "Gram matrix");
    const std::size_t begin = rows[context.me()], end = rows[context.me() + 1];
    sum.finish_reduce({gram.view().data + begin * sizeof(float), DType::f32, 1, end - begin});
    gather_to(context.group, context.block_group.owner_of(block), gram, rows);
    return gram;
}

/// The factor and the inputs that no calibration token ever used. Computed by the block's owner and broadcast, so that
/// all rows see the same bits.
void factor_gram(const GroupContext& context, std::size_t block, LinearInput input, TensorView gram,
                 TensorView dead_inputs, std::vector<std::string>& sentences) {
    constexpr std::array<float, 4> dampings = {0.01F, 0.1F, 1.0F, 10.0F};
    const std::string name = context.layout.weight_name(block, context.layout.layers_of(input).front());
    const int owner = context.block_group.owner_of(block);
    std::array<int, 1> attempts = {-1};
    if (context.group.rank() == owner) {
        for (std::size_t i = 0; i < dampings.size() && attempts[0] < 0; ++i) {
            if (context.device.factor_inverse_gram(dampings[i], gram, dead_inputs)) attempts[0] = static_cast<int>(i);
        }
    }
    context.control.broadcast(std::span<int>(attempts), owner);
    if (attempts[0] < 0) {
        throw InputError(
            "tensor '" + name +
            "': the Gram matrix of its input is not positive definite even with a damping of 10 times its mean "
            "diagonal; use more calibration samples");
    }
    if (attempts[0] > 0) {
        sentences.push_back("note: tensor '" + name + "': damping raised to " +
                            std::to_string(static_cast<int>(100 * dampings[static_cast<std::size_t>(attempts[0])])) +
                            " % of the mean diagonal, since its Gram matrix is not positive definite with less");
    }
    broadcast(context.group, gram, owner);
    broadcast(context.group, dead_inputs, owner);
}

/// Sweeps some rows in float32. As the source does, a layer is stored in its own type before the next one's inputs are
/// computed.
void sweep(Device& device, const PruneOptions& options, SweepMask origin, TensorView gram, TensorView dead,
           TensorView weight, TensorView mask, TensorView unusable) {
    if (weight.dtype == DType::f32) {
        device.sparsegpt_sweep(gram, dead, options.pattern, origin, weight, mask, unusable);
        device.round_to(options.output_dtype, weight);
        return;
    }
    const Tensor wide = device.make_tensor(DType::f32, weight.rows, weight.columns, "float32 weights");
    device.convert(weight, wide);
    device.sparsegpt_sweep(gram, dead, options.pattern, origin, wide, mask, unusable);
    device.convert(wide, weight);
}

}  // namespace

std::vector<std::string> prune_with_sparsegpt(const GroupContext& context, const PruneOptions& options,
                                              std::size_t block, DecoderBlock& decoder, const HiddenStates& x,
                                              BlockWeights& weights, SweepMask origin, BlockTensor& mask,
                                              PhaseClock& clock) {
    std::vector<std::string> sentences;
    const PartTensor no_gradient;
    for (const LinearInput input : context.layout.linear_inputs()) {
        const Tensor gram = sum_gram(context, block, input, decoder, x, weights);
        clock.mark("statistics");
        const Tensor dead = context.device.make_tensor(DType::u8, 1, context.layout.input(input).width, "dead inputs");
        factor_gram(context, block, input, gram, dead, sentences);
        const WeightPartition partition = WeightPartition::balanced(context.layout, context.ranks(), input);
        const DeviceCounters unusable(context.device, context.layout.matrices().size());
        for (const RowSlice& slice : partition.slices_of(context.me())) {
            sweep(context.device, options, origin, gram, dead,
                  weights.matrices.matrix(slice.layer).row_range(slice.row_begin, slice.row_end),
                  mask.matrix(slice.layer).row_range(slice.row_begin, slice.row_end),
                  unusable.at(index_of(slice.layer)));
        }
        refuse_unusable_scores(context, unusable, block);
        const BlockMasker gatherer(context, options, partition, no_gradient);
        gatherer.gather_weights(weights);
        if (origin == SweepMask::chosen) gatherer.gather_mask(mask);
        clock.mark("mask");
    }
    return sentences;
}

}  // namespace espalier
