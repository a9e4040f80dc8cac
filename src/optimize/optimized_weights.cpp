#include "src/optimize/optimized_weights.h"

#include "mpi/tensor_collectives.h"

namespace espalier {

namespace {

TensorView rows_of(const BlockWeights& weights, const RowSlice& slice) {
    return weights.matrices.matrix(slice.layer).row_range(slice.row_begin, slice.row_end);
}

}  // namespace

OptimizedWeights::OptimizedWeights(const GroupContext& context, const WeightPartition& partition, DType of_passes,
                                   bool measures_rounded, BlockWeights& run)
    : context_(context), partition_(partition), measures_rounded_(measures_rounded), run_(run) {
    if (of_passes != run.dtype())
        own_.emplace(context.device, context.layout, of_passes, "weights of the optimiser's passes");
    if (of_passes != DType::f32 && run.dtype() != DType::f32) {
        masters_ = PartTensor(context.device, partition, context.me(), "float32 masters");
    }
}

void OptimizedWeights::load() {
    if (own_) {
        context_.device.convert(run_.matrices.all(), own_->matrices.all());
        own_->block = run_.block;
        for (std::size_t v = 0; v < context_.layout.vectors().size(); ++v) {
            context_.device.copy(run_.vector(BlockVector{v}), own_->vector(BlockVector{v}));
        }
    }
    if (masters_.empty()) return;
    for (const RowSlice& slice : partition_.slices_of(context_.me())) {
        context_.device.convert(rows_of(run_, slice), master(slice));
    }
}

const BlockWeights& OptimizedWeights::rounded_for_measuring() {
    if (!measures_rounded_ || !own_ || masters_are_apart()) return of_passes();
    context_.device.convert(own_->matrices.all(), run_.matrices.all());
    return run_;
}

TensorView OptimizedWeights::master(const RowSlice& slice) const {
    if (!masters_.empty()) return masters_.slice(slice, columns_of(slice));
    return rows_of(masters_are_apart() ? run_ : of_passes(), slice);
}

TensorView OptimizedWeights::rounded(const RowSlice& slice) const {
    return masters_are_apart() ? rows_of(of_passes(), slice) : TensorView{};
}

void OptimizedWeights::share() {
    for (const RowSlice& slice : partition_.slices_of(context_.me())) {
        if (masters_are_apart()) context_.device.convert(master(slice), rounded(slice));
    }
    gather_parts(context_.group, partition_, of_passes().matrices);
}

std::unique_ptr<Exchange> OptimizedWeights::start_sharing(LinearLayer layer) const {
    return start_all_gather(context_.group, of_passes().matrices.matrix(layer), partition_.offsets_in(layer));
}

void OptimizedWeights::store(DType output) {
    if (own_ && own_->dtype() == DType::f32) {
        context_.device.convert(own_->matrices.all(), run_.matrices.all());
    } else if (own_) {
        gather_parts(context_.group, partition_, run_.matrices);
    }
    if (run_.dtype() == DType::f32) context_.device.round_to(output, run_.matrices.all());
}

}  // namespace espalier
