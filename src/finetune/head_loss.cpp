#include "src/finetune/head_loss.h"

#include "src/model/block_half.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace espalier {

namespace {

TensorView first_numbers(const Tensor& tensor, std::size_t count) {
    return {tensor.view().data, DType::f32, 1, count};
}

std::vector<float> on_host(Device& device, TensorView numbers) {
    std::vector<float> values(numbers.size());
    device.copy_to_host(numbers, values.data());
    return values;
}

std::vector<std::uint32_t> in_order(std::size_t count) {
    std::vector<std::uint32_t> numbers(count);
    std::iota(numbers.begin(), numbers.end(), 0U);
    return numbers;
}

}  // namespace

Predictions Predictions::of(std::span<const std::int32_t> ids, std::size_t sequence_length) {
    Predictions predictions;
    for (std::size_t row = 0; row < ids.size(); ++row) {
        if (row % sequence_length + 1 == sequence_length) continue;
        predictions.rows.push_back(static_cast<std::uint32_t>(row));
        predictions.targets.push_back(ids[row + 1]);
    }
    return predictions;
}

LogitSums HeadLoss::Sums::of(std::size_t predictions) const {
    return {first_numbers(running_max, predictions), first_numbers(running_sum, predictions),
            first_numbers(target_logit, predictions)};
}

HeadLoss::HeadLoss(Device& device, const OuterWeights& student, const OuterWeights* teacher, const LossWeights& weights,
                   std::size_t most_predictions, const LogitLimits& limits)
    : device_(device),
      student_(student),
      teacher_(teacher),
      weights_(weights),
      panel_(std::min(limits.panel, student.head().rows)),
      keeps_logits_((teacher == nullptr ? 1 : 2) * most_predictions * student.head().rows * sizeof(float) <=
                    limits.kept_bytes) {
    require((teacher != nullptr) == (weights.divergence != 0), "a teacher for a divergence");
    const std::size_t n = most_predictions, hidden = student.head().columns;
    const DType dtype = student.head().dtype;
    states_ = device.make_tensor(DType::f32, n, hidden, activations);
    normed_ = device.make_tensor(dtype, n, hidden, activations);
    inverse_rms_ = device.make_tensor(DType::f32, 1, n, activations);
    dnormed_ = device.make_tensor(DType::f32, n, hidden, activations);
    dstates_ = device.make_tensor(DType::f32, n, hidden, activations);
    const std::size_t held = keeps_logits_ ? student.head().rows : panel_;
    logits_ = device.make_tensor(DType::f32, n, held, "logits");
    if (dtype != DType::f32) rounded_ = device.make_tensor(dtype, n, panel_, "logits");
    sums_ = make_sums();
    if (teacher == nullptr) return;
    teacher_logits_ = device.make_tensor(DType::f32, n, held, "logits");
    teacher_sums_ = make_sums();
    divergences_ = device.make_tensor(DType::f32, 1, n, "losses");
}

HeadLoss::Sums HeadLoss::make_sums() const {
    const auto make = [&] { return device_.make_tensor(DType::f32, 1, states_.view().rows, "losses"); };
    return {make(), make(), make()};
}

TensorView HeadLoss::place_of_logits(std::size_t rows, std::size_t first, const Tensor& storage) const {
    const std::size_t columns = std::min(student_.head().rows - first, panel_), before = keeps_logits_ ? first : 0;
    return {storage.view().data + rows * before * sizeof(float), DType::f32, rows, columns};
}

TensorView HeadLoss::compute_logits(const OuterWeights& model, TensorView normed, std::size_t first,
                                    const Tensor& storage) const {
    const TensorView logits = place_of_logits(normed.rows, first, storage);
    device_.linear(normed, model.head().row_range(first, first + logits.columns), {}, logits);
    return logits;
}

TensorView HeadLoss::logits_again(const OuterWeights& model, TensorView normed, std::size_t first,
                                  const Tensor& storage) const {
    return keeps_logits_ ? place_of_logits(normed.rows, first, storage) : compute_logits(model, normed, first, storage);
}

void HeadLoss::first_pass(const Predictions& predictions, const OuterWeights& model, TensorView normed,
                          const Tensor& logits, const Sums& sums) {
    const LogitSums s = sums.of(predictions.rows.size());
    device_.start_cross_entropy(s.running_max, s.running_sum, s.target_logit);
    for (std::size_t first = 0; first < model.head().rows; first += panel_) {
        device_.cross_entropy_panel(compute_logits(model, normed, first, logits), first, predictions.targets,
                                    s.running_max, s.running_sum, s.target_logit);
    }
}

template <typename Consume>
void HeadLoss::second_pass(const Predictions& predictions, TensorView normed, TensorView teacher,
                           const Consume& consume) {
    const std::size_t n = predictions.rows.size();
    for (std::size_t first = 0; first < student_.head().rows; first += panel_) {
        const TensorView logits = logits_again(student_, normed, first, logits_);
        if (teacher_ == nullptr) {
            device_.token_loss_gradient(weights_, sums_.of(n), first, predictions.targets, {}, {}, {}, logits);
        } else {
            device_.token_loss_gradient(weights_, sums_.of(n), first, predictions.targets,
                                        logits_again(*teacher_, teacher, first, teacher_logits_), teacher_sums_.of(n),
                                        first_numbers(divergences_, n), logits);
        }
        consume(first, logits);
    }
}

TensorView HeadLoss::begin(const Predictions& predictions, TensorView states, TensorView teacher) {
    predictions_ = predictions.rows.size();
    require(predictions_ <= states_.view().rows, "predictions that were said");
    const TensorView x = states_.view().row_range(0, predictions_), normed = normed_.view().row_range(0, predictions_);
    device_.scatter_rows(states, predictions.rows, in_order(predictions_), x);
    student_.norm(x, normed, inverse_rms_);
    first_pass(predictions, student_, normed, logits_, sums_);
    if (teacher_ != nullptr) {
        first_pass(predictions, *teacher_, teacher, teacher_logits_, teacher_sums_);
        device_.fill_zero(divergences_);
    }
    return normed;
}

void HeadLoss::gradient(const Predictions& predictions, TensorView states, TensorView teacher, TensorView dstates,
                        TensorView dgain) {
    const TensorView normed = begin(predictions, states, teacher);
    const TensorView x = states_.view().row_range(0, predictions_),
                     dnormed = dnormed_.view().row_range(0, predictions_),
                     dx = dstates_.view().row_range(0, predictions_);
    second_pass(predictions, normed, teacher, [&](std::size_t first, TensorView dlogits) {
        TensorView factor = dlogits;
        if (!rounded_.empty()) {
            factor = {rounded_.view().data, rounded_.view().dtype, dlogits.rows, dlogits.columns};
            device_.convert(dlogits, factor);
        }
        const TensorView weights = student_.head().row_range(first, first + dlogits.columns);
        device_.linear_input_gradient(factor, weights, first > 0, dnormed);
    });
    if (!dgain.empty()) device_.rms_norm_gain_gradient(x, inverse_rms_, dnormed, dgain);
    device_.rms_norm_backward(x, student_.final_norm(), inverse_rms_, dnormed, false, dx);
    device_.fill_zero(dstates);
    device_.scatter_rows(dx, in_order(predictions_), predictions.rows, dstates);
}

void HeadLoss::measure(const Predictions& predictions, TensorView states, TensorView teacher) {
    const TensorView normed = begin(predictions, states, teacher);
    if (teacher_ != nullptr) second_pass(predictions, normed, teacher, [](std::size_t, TensorView) {});
}

std::vector<LossSums> HeadLoss::read() const {
    const LogitSums of_student = sums_.of(predictions_);
    const std::vector<float> largest = on_host(device_, of_student.running_max),
                             sum = on_host(device_, of_student.running_sum),
                             target = on_host(device_, of_student.target_logit);
    std::vector<float> divergence(predictions_, 0.0F);
    if (teacher_ != nullptr) divergence = on_host(device_, first_numbers(divergences_, predictions_));
    std::vector<LossSums> losses(predictions_);
    for (std::size_t i = 0; i < predictions_; ++i) {
        losses[i] = {
            std::log(static_cast<double>(sum[i])) + static_cast<double>(largest[i]) - static_cast<double>(target[i]),
            static_cast<double>(divergence[i])};
    }
    return losses;
}

}  // namespace espalier
