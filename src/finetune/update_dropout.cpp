#include "src/finetune/update_dropout.h"

#include <algorithm>

namespace espalier {

namespace {

/// Beside the streams of other draws under the same seed.
constexpr std::uint32_t draws_of_dropout = 0xD0U << 24U;

}  // namespace

UpdateDropout::UpdateDropout(const TrainingContext& context, const TrainedValues& values, const StudentWeights& student,
                             std::size_t rows)
    : context_(context), values_(values), student_(student) {
    if (context.options.dropout == 0) return;
    std::size_t widest = 0, largest = 0;
    for (const MatrixShape& matrix : context.student.layout().matrices()) {
        widest = std::max(widest, matrix.columns);
        largest = std::max(largest, matrix.size());
    }
    const DType dtype = context.compute_dtype();
    constexpr const char* name = "dropout";
    inputs_ = context.device.make_tensor(dtype, rows, widest, name);
    if (context.options.train == TrainedPart::lora)
        narrow_ = context.device.make_tensor(dtype, rows, context.options.rank, name);
    else if (dtype != DType::f32)
        update_ = context.device.make_tensor(dtype, 1, largest, name);
}

void UpdateDropout::begin(const BlockWeights& weights, std::uint64_t first_row) {
    weights_ = &weights;
    first_row_ = first_row;
}

DropoutMask UpdateDropout::mask_of(LinearLayer layer) const {
    const auto matrices = static_cast<std::uint32_t>(context_.student.layout().matrices().size());
    const auto stream = static_cast<std::uint32_t>(weights_->block) * matrices + static_cast<std::uint32_t>(layer);
    return {context_.options.dropout, context_.options.seed, draws_of_dropout + stream, first_row_};
}

bool UpdateDropout::is_trained(LinearLayer layer) const {
    return values_.layout(0).find(TrainedKind::lora_a, layer) != nullptr;
}

TensorView UpdateDropout::dropped(LinearLayer layer, TensorView x) {
    const DropoutMask mask = mask_of(layer);
    const TensorView result = {inputs_.view().data, x.dtype, x.rows, x.columns};
    context_.device.dropout(mask, static_cast<float>(mask.kept_scale()), 0, false, x, result);
    return result;
}

TensorView UpdateDropout::masked_update(LinearLayer layer) {
    const MatrixShape& matrix = context_.student.layout().matrix(layer);
    const TensorView update = student_.scratch(matrix.rows, matrix.columns);
    values_.masked_update(weights_->block, layer, weights_->matrices.matrix(layer), update);
    if (update_.empty()) return update;
    const TensorView rounded = {update_.view().data, update_.view().dtype, matrix.rows, matrix.columns};
    context_.device.convert(update, rounded);
    return rounded;
}

UpdateDropout::Difference UpdateDropout::difference_of(LinearLayer layer) const {
    const DropoutMask mask = mask_of(layer);
    const double scale = context_.options.keeps_zeros() ? 1 : context_.options.scale();  // masked updates have it
    return {mask, static_cast<float>(scale * (mask.kept_scale() - 1)), static_cast<float>(-scale)};
}

void UpdateDropout::add(LinearLayer layer, TensorView x, TensorView y) {
    if (!is_trained(layer)) return;
    Device& device = context_.device;
    const auto [mask, kept, dropped] = difference_of(layer);
    const TensorView difference = {inputs_.view().data, x.dtype, x.rows, x.columns};
    device.dropout(mask, kept, dropped, false, x, difference);
    if (context_.options.keeps_zeros()) return device.linear(difference, masked_update(layer), y, y);
    const LowRankFactors factors = values_.factors(weights_->block, layer, x.dtype);
    const TensorView narrow = {narrow_.view().data, x.dtype, x.rows, context_.options.rank};
    device.linear(difference, factors.a, {}, narrow);
    device.linear(narrow, factors.b, y, y);
}

void UpdateDropout::add_input_gradient(LinearLayer layer, TensorView dy, TensorView dx) {
    if (!is_trained(layer)) return;
    Device& device = context_.device;
    const TensorView through = {inputs_.view().data, dy.dtype, dx.rows, dx.columns};
    if (context_.options.keeps_zeros()) {
        device.linear_input_gradient(dy, masked_update(layer), false, through);
    } else {
        const LowRankFactors factors = values_.factors(weights_->block, layer, dy.dtype);
        const TensorView narrow = {narrow_.view().data, dy.dtype, dy.rows, context_.options.rank};
        device.linear_input_gradient(dy, factors.b, false, narrow);
        device.linear_input_gradient(narrow, factors.a, false, through);
    }
    const auto [mask, kept, dropped] = difference_of(layer);
    device.dropout(mask, kept, dropped, true, through, dx);
}

}  // namespace espalier
