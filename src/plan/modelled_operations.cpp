// Statistics, losses, generation, fine-tuning and pruning on a modelled device; the block's own operations are in
// modelled_device.cpp.
#include "kernels/working_memory.h"
#include "src/plan/modelled_device.h"
#include "src/plan/operation_costs.h"

#include <algorithm>

namespace espalier {

void ModelledDevice::column_square_sums(TensorView x, TensorView sums) {
    const std::size_t runs = (x.rows + rows_of_square_sum - 1) / rows_of_square_sum;
    const Tensor sums_of_runs = model_.is_gpu ? make_tensor(DType::f32, runs, x.columns, working_memory) : Tensor();
    touch(bytes_of_all(x, sums));
}

void ModelledDevice::square_accumulate(TensorView x, TensorView sum) {
    touch(x.bytes() + 2 * sum.bytes());
}

void ModelledDevice::column_sum_roots(TensorView x, double /*scale*/, TensorView roots) {
    touch(bytes_of_all(x, roots));
}

void ModelledDevice::scaled_square_root(float /*scale*/, TensorView x) {
    touch(2 * x.bytes());
}

void ModelledDevice::frobenius_direction(TensorView y, TensorView /*square_sum*/, float /*scale*/,
                                         TensorView direction) {
    touch(bytes_of_all(y, direction));
}

void ModelledDevice::square_sum(TensorView x, TensorView /*sum*/) {
    const Tensor parts = parts_of_a_sum();
    touch(x.bytes());
}

void ModelledDevice::squared_error(TensorView y, TensorView target, TensorView /*sum*/) {
    const Tensor parts = parts_of_a_sum();
    touch(bytes_of_all(y, target));
}

void ModelledDevice::squared_error_gradient(TensorView target, TensorView y) {
    touch(target.bytes() + 2 * y.bytes());
}

void ModelledDevice::relative_error_gradient(TensorView target, TensorView y, TensorView /*sum*/) {
    const Tensor of_rows = model_.is_gpu ? make_tensor(DType::f64, 1, y.rows, working_memory) : Tensor();
    touch(2 * target.bytes() + 3 * y.bytes());
}

void ModelledDevice::count_nonfinite(TensorView x, TensorView /*count*/) {
    touch(x.bytes());
}

void ModelledDevice::count_zeros(TensorView x, TensorView /*count*/) {
    touch(x.bytes());
}

void ModelledDevice::compare_masks(TensorView mask, TensorView before, TensorView /*removed*/, TensorView /*changed*/) {
    touch(bytes_of_all(mask, before));
}

void ModelledDevice::count_unchanged(TensorView weight, TensorView before, TensorView mask, TensorView /*kept*/,
                                     TensorView /*unchanged*/) {
    touch(bytes_of_all(weight, before, mask));
}

void ModelledDevice::scatter_rows(TensorView source, std::span<const std::uint32_t> source_rows,
                                  std::span<const std::uint32_t> rows, TensorView destination) {
    const Tensor indices = copied_from_host(source_rows.size() + rows.size());
    touch(bytes_of_all(source, destination));
}

void ModelledDevice::start_cross_entropy(TensorView running_max, TensorView running_sum, TensorView target_logit) {
    touch(bytes_of_all(running_max, running_sum, target_logit));
}

void ModelledDevice::cross_entropy_panel(TensorView logits, std::size_t /*first_token*/,
                                         std::span<const std::int32_t> targets, TensorView /*running_max*/,
                                         TensorView /*running_sum*/, TensorView /*target_logit*/) {
    const Tensor wanted = copied_from_host(targets.size());
    touch(logits.bytes());
}

void ModelledDevice::token_loss_gradient(const LossWeights& /*loss*/, const LogitSums& /*sums*/,
                                         std::size_t /*first_token*/, std::span<const std::int32_t> targets,
                                         TensorView teacher, const LogitSums& /*teacher_sums*/,
                                         TensorView /*divergences*/, TensorView logits) {
    const Tensor wanted = copied_from_host(targets.size());
    touch(2 * logits.bytes() + teacher.bytes());
}

void ModelledDevice::attention_step(TensorView q, TensorView k, TensorView v, const AttentionShape& /*shape*/,
                                    std::size_t position, TensorView /*key_cache*/, TensorView /*value_cache*/,
                                    TensorView out) {
    touch(bytes_of_all(q, out) + (position + 1) * bytes_of_all(k, v));
}

void ModelledDevice::sample_tokens(TensorView logits, const SamplingRule& /*rule*/, std::size_t /*first_sequence*/,
                                   std::size_t /*position*/, TensorView /*tokens*/) {
    touch(3 * logits.bytes());
}

void ModelledDevice::add_low_rank_update(TensorView base, TensorView a, TensorView b, float /*scale*/,
                                         ZeroWeights /*zeros*/, TensorView weight) {
    const std::size_t rows =
        model_.is_gpu ? std::min(b.rows, gradient_panel_rows(a.columns, model_.multiprocessors)) : 0;
    const Tensor panel = model_.is_gpu ? make_tensor(DType::f32, rows, a.columns, working_memory) : Tensor();
    multiply(product_flops(b.rows, a.columns, a.rows), rates_of(DType::f32).linear);
    touch(bytes_of_all(base, weight));
}

void ModelledDevice::dropout(const DropoutMask& /*mask*/, float /*kept*/, float /*dropped*/, bool accumulate,
                             TensorView x, TensorView y) {
    touch(x.bytes() + (accumulate ? 2 : 1) * y.bytes());
}

void ModelledDevice::scale_where_nonzero(TensorView weight, float /*scale*/, TensorView x) {
    touch(weight.bytes() + 2 * x.bytes());
}

void ModelledDevice::rms_norm_gain_gradient(TensorView x, TensorView /*inverse_rms*/, TensorView dy,
                                            TensorView gradient) {
    const std::size_t runs = (x.rows + rows_of_square_sum - 1) / rows_of_square_sum;
    const Tensor sums_of_runs = model_.is_gpu ? make_tensor(DType::f32, runs, x.columns, working_memory) : Tensor();
    touch(bytes_of_all(x, dy, gradient));
}

void ModelledDevice::score_and_mask(const ScoreTerms& terms, const PruningPattern& pattern, TensorView weight,
                                    TensorView mask, TensorView /*unusable*/) {
    const std::size_t passes = pattern.structured() ? 1 : 6;  // a radix select passes over its row several times
    touch(passes * (terms.gradient.bytes() + 2 * weight.bytes() + mask.bytes()));
    const double of_memory =
        static_cast<double>(weight.bytes() * 2 + terms.gradient.bytes() + mask.bytes()) / model_.memory_bandwidth;
    const double slower = static_cast<double>(passes) *
                          std::max(0.0, static_cast<double>(weight.size()) / model_.masking_rate - of_memory);
    spent_.memory += slower;
    clock_.advance(slower);
}

void ModelledDevice::optimizer_step(const OptimizerStep& step, const OptimizedRows& rows) {
    const std::size_t kept = (1 + moments_of(step.rule)) * rows.weight.bytes();  // read and written
    touch(rows.gradient.bytes() + 2 * kept + bytes_of_all(rows.mask, rows.rounded));
}

bool ModelledDevice::factor_inverse_gram(float /*damping*/, TensorView gram, TensorView /*dead_inputs*/) {
    // The float64 copy that is factored, and a solver's scratch at most; in a library's own memory on the CPU.
    const Tensor copies =
        model_.is_gpu ? make_tensor(DType::f64, 2 * gram.rows, gram.columns, working_memory) : Tensor();
    const auto n = static_cast<double>(gram.rows);
    multiply(n * n * n * 4.0 / 3.0, model_.float32.linear / 2);
    return true;
}

void ModelledDevice::sparsegpt_sweep(TensorView factor, TensorView /*dead_inputs*/, const PruningPattern& pattern,
                                     SweepMask /*origin*/, TensorView weight, TensorView /*mask*/,
                                     TensorView /*unusable*/) {
    const std::size_t columns = sparsegpt_sweep_columns(pattern);
    const Tensor errors = model_.is_gpu ? make_tensor(DType::f32, weight.rows, columns, working_memory) : Tensor();
    multiply(static_cast<double>(weight.size()) * static_cast<double>(factor.rows), model_.float32.linear);
}

void ModelledDevice::convert(TensorView source, TensorView destination) {
    move(source, destination);
}

void ModelledDevice::round_to(DType /*dtype*/, TensorView values) {
    touch(2 * values.bytes());
}

}  // namespace espalier
