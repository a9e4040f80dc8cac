#include "src/finetune/student_weights.h"

#include "mpi/tensor_collectives.h"
#include "src/blocks/block_loader.h"
#include "src/weights/block_reader.h"

#include <algorithm>

namespace espalier {

namespace {

std::size_t largest_matrix(const BlockLayout& layout) {
    std::size_t largest = 0;
    for (const MatrixShape& matrix : layout.matrices()) largest = std::max(largest, matrix.size());
    return largest;
}

}  // namespace

StudentWeights::StudentWeights(const TrainingContext& context, TrainedValues& values)
    : context_(context),
      values_(values),
      partition_(WeightPartition::balanced(context.student.layout(), context.ranks())),
      scratch_(context.device.make_tensor(DType::f32, 1, largest_matrix(context.student.layout()),
                                          "an update or gradient of a matrix")) {
    const BlockLayout& layout = context.student.layout();
    const DType dtype = context.compute_dtype();
    const auto make = [&] { return std::make_unique<BlockWeights>(context.device, layout, dtype); };
    // Resident weights of trained matrices are passed on as they are; those under updates of low rank are copied first.
    if (!resident() || context.options.low_rank()) slots_[0].weights = make();
    if (!resident()) slots_[1].weights = make();
    const BlockLoader loader(context.device, layout, context.group);
    BlockReader<BlockPart> reader([&](std::size_t block) { return loader.read(context.student, block); });
    for (std::size_t block = 0; block < context.blocks(); ++block) {
        const BlockPart part = reader.take(block);
        if (block + 1 < context.blocks()) reader.prefetch(block + 1);
        if (resident()) blocks_.push_back(make());
        BlockWeights& weights = resident() ? *blocks_.back() : *slots_[0].weights;
        loader.load(context.student.storage(), block, part, weights);
        values.start(block, weights, scratch_);
        if (!resident()) keep(weights);
    }
}

bool StudentWeights::is_in_shares(LinearLayer layer) const {
    return context_.options.low_rank() || values_.layout(0).find(TrainedKind::weight, layer) == nullptr;
}

void StudentWeights::keep(const BlockWeights& weights) {
    const BlockLayout& layout = context_.student.layout();
    std::size_t size = 0;
    for (const RowSlice& slice : partition_.slices_of(context_.me())) {
        if (is_in_shares(slice.layer)) size += slice.rows() * layout.matrix(slice.layer).columns;
    }
    shares_.push_back(context_.device.make_tensor(context_.compute_dtype(), 1, size, "shares of the weights"));
    std::size_t offset = 0;
    for (const RowSlice& slice : partition_.slices_of(context_.me())) {
        if (!is_in_shares(slice.layer)) continue;
        const TensorView rows = weights.matrices.matrix(slice.layer).row_range(slice.row_begin, slice.row_end);
        const TensorView& all = shares_.back().view();
        context_.device.copy(rows, {all.data + offset * bytes_of(all.dtype), all.dtype, rows.rows, rows.columns});
        offset += rows.size();
    }
    std::vector<Tensor>& kept = vectors_.emplace_back();
    for (std::size_t v = 0; v < layout.vectors().size(); ++v) {
        kept.push_back(context_.device.make_tensor(DType::f32, 1, layout.vectors()[v].size, "shares of the weights"));
        context_.device.copy(weights.vector(BlockVector{v}), kept.back());
    }
}

void StudentWeights::start_gathering(std::size_t block, Slot& slot) {
    const BlockLayout& layout = context_.student.layout();
    slot.block = block;
    slot.is_there = false;
    BlockWeights& weights = *slot.weights;
    weights.block = block;
    std::size_t offset = 0;
    for (const RowSlice& slice : partition_.slices_of(context_.me())) {
        if (!is_in_shares(slice.layer)) continue;
        const TensorView rows = weights.matrices.matrix(slice.layer).row_range(slice.row_begin, slice.row_end);
        const TensorView& all = shares_[block].view();
        context_.device.copy({all.data + offset * bytes_of(all.dtype), all.dtype, rows.rows, rows.columns}, rows);
        offset += rows.size();
    }
    for (std::size_t v = 0; v < layout.vectors().size(); ++v) {
        context_.device.copy(vectors_[block][v], weights.vector(BlockVector{v}));
    }
    slot.exchanges = values_.start_gathering(block, weights);
    for (const LinearLayer layer : layout.linear_layers()) {
        if (!is_in_shares(layer)) continue;
        slot.exchanges.push_back(
            espalier::start_all_gather(context_.group, weights.matrices.matrix(layer), partition_.offsets_in(layer)));
    }
}

const BlockWeights& StudentWeights::take(std::size_t block, std::optional<std::size_t> then) {
    if (resident() && !context_.options.low_rank()) return *blocks_[block];
    if (resident()) {
        BlockWeights& weights = *slots_[0].weights;
        const BlockWeights& stored = *blocks_[block];
        weights.block = block;
        for (const LinearLayer layer : context_.student.layout().linear_layers()) {
            if (values_.layout(0).find(TrainedKind::lora_b, layer) == nullptr)
                context_.device.copy(stored.matrices.matrix(layer), weights.matrices.matrix(layer));
        }
        for (std::size_t v = 0; v < context_.student.layout().vectors().size(); ++v) {
            context_.device.copy(stored.vector(BlockVector{v}), weights.vector(BlockVector{v}));
        }
        values_.apply(block, stored, weights);
        return weights;
    }
    // At the turn from the way forth to the way back the last block is asked for again.
    Slot& last = slots_[1 - next_slot_];
    if (!(last.is_there && last.block == block)) {
        Slot& next = slots_[next_slot_];
        if (next.block != block) start_gathering(block, next);
        finish(next);
        next_slot_ = 1 - next_slot_;
    }
    if (then && slots_[next_slot_].block != then) start_gathering(*then, slots_[next_slot_]);
    return *slots_[1 - next_slot_].weights;
}

void StudentWeights::finish(Slot& slot) {
    for (const std::unique_ptr<Exchange>& exchange : slot.exchanges) exchange->finish();
    slot.exchanges.clear();
    if (!slot.is_there) values_.apply(*slot.block, *slot.weights, *slot.weights);
    slot.is_there = true;
}

void StudentWeights::refresh() {
    for (Slot& slot : slots_) {
        for (const std::unique_ptr<Exchange>& exchange : slot.exchanges) exchange->finish();
        slot.exchanges.clear();
        slot.block.reset();
        slot.is_there = false;
    }
    if (!resident() || context_.options.low_rank()) return;
    for (std::size_t block = 0; block < blocks_.size(); ++block) {
        for (const auto& exchange : values_.start_gathering(block, *blocks_[block])) exchange->finish();
    }
}

TensorView StudentWeights::scratch(std::size_t rows, std::size_t columns) const {
    require(rows * columns <= scratch_.view().size(), "a matrix of the model");
    return {scratch_.view().data, DType::f32, rows, columns};
}

}  // namespace espalier
