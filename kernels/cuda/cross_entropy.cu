// Cross-entropy over the vocabulary in panels, with a running maximum and sum (online log-sum-exp), so that the logits
// of a window never exist as a whole.
#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/element.cuh"
#include "kernels/cuda/reduce.cuh"

namespace espalier {

namespace {

using namespace cuda;

constexpr int threads = 256;

__global__ void start_cross_entropy_kernel(std::size_t count, float* running_max, float* running_sum,
                                           float* target_logit) {
    const std::size_t i = std::size_t{blockIdx.x} * threads + threadIdx.x;
    if (i >= count) return;
    running_max[i] = -INFINITY;
    running_sum[i] = 0;
    target_logit[i] = 0;
}

/// A block takes the row of one token.
__global__ void __launch_bounds__(threads)
    cross_entropy_panel_kernel(const float* logits, std::size_t columns, std::size_t first_token,
                               const std::int32_t* targets, float* running_max, float* running_sum,
                               float* target_logit) {
    const std::size_t row = blockIdx.x;
    const float* const values = logits + row * columns;
    const float before = running_max[row];
    float largest = before;
    for (std::size_t j = threadIdx.x; j < columns; j += threads) largest = fmaxf(largest, values[j]);
    largest = reduce_in_block<threads>(largest, -INFINITY, Maximum());
    float sum = 0;
    for (std::size_t j = threadIdx.x; j < columns; j += threads) sum += expf(values[j] - largest);
    sum = reduce_in_block<threads>(sum, 0.0F, Sum());
    if (threadIdx.x != 0) return;
    running_sum[row] = running_sum[row] * expf(before - largest) + sum;
    running_max[row] = largest;
    const auto target = static_cast<std::size_t>(targets[row]);
    if (target >= first_token && target < first_token + columns) target_logit[row] = values[target - first_token];
}

struct LossGradientArguments {
    LossWeights loss;
    const float *running_max, *running_sum;
    const float *teacher, *teacher_max, *teacher_sum;  ///< null without a teacher
    float* divergences;
    const std::int32_t* targets;
    std::size_t first_token, columns;
    float* logits;
};

/// A block takes the row of one token.
__global__ void __launch_bounds__(threads) token_loss_gradient_kernel(LossGradientArguments a) {
    const std::size_t row = blockIdx.x;
    float* const values = a.logits + row * a.columns;
    const float* const of_teacher = a.teacher == nullptr ? nullptr : a.teacher + row * a.columns;
    const float log_sum = a.running_max[row] + logf(a.running_sum[row]);
    const float teacher_log_sum = of_teacher == nullptr ? 0.0F : a.teacher_max[row] + logf(a.teacher_sum[row]);
    const float total = a.loss.language_model + a.loss.divergence;
    const std::size_t target = static_cast<std::size_t>(a.targets[row]) - a.first_token;  // huge when before the panel
    float divergence = 0;
    for (std::size_t j = threadIdx.x; j < a.columns; j += threads) {
        const float log_p = values[j] - log_sum;
        float gradient = total * expf(log_p);
        if (of_teacher != nullptr) {
            const float log_q = of_teacher[j] - teacher_log_sum, q = expf(log_q);
            divergence += q * (log_q - log_p);
            gradient -= a.loss.divergence * q;
        }
        values[j] = j == target ? gradient - a.loss.language_model : gradient;
    }
    if (of_teacher == nullptr) return;
    divergence = reduce_in_block<threads>(divergence, 0.0F, Sum());
    if (threadIdx.x == 0) a.divergences[row] += divergence;
}

}  // namespace

void CudaDevice::start_cross_entropy(TensorView running_max, TensorView running_sum, TensorView target_logit) {
    const std::size_t count = running_max.size();
    require(running_sum.size() == count && target_logit.size() == count, "shapes of start_cross_entropy");
    if (count == 0) return;
    launch("start_cross_entropy", start_cross_entropy_kernel, {to_unsigned((count + threads - 1) / threads), threads},
           stream_, count, running_max.floats(), running_sum.floats(), target_logit.floats());
}

void CudaDevice::cross_entropy_panel(TensorView logits, std::size_t first_token, std::span<const std::int32_t> targets,
                                     TensorView running_max, TensorView running_sum, TensorView target_logit) {
    require(targets.size() == logits.rows && running_max.size() == logits.rows, "shapes of cross_entropy_panel");
    if (logits.rows == 0) return;
    const Tensor wanted = make_tensor(DType::f32, 1, targets.size(), working_memory);  // 32-bit numbers
    copy_from_host(targets.data(), wanted);
    launch("cross_entropy_panel", cross_entropy_panel_kernel, {to_unsigned(logits.rows), threads}, stream_,
           logits.floats(), logits.columns, first_token, as<const std::int32_t>(wanted), running_max.floats(),
           running_sum.floats(), target_logit.floats());
}

void CudaDevice::token_loss_gradient(const LossWeights& loss, const LogitSums& sums, std::size_t first_token,
                                     std::span<const std::int32_t> targets, TensorView teacher,
                                     const LogitSums& teacher_sums, TensorView divergences, TensorView logits) {
    require(targets.size() == logits.rows && sums.running_max.size() == logits.rows, "shapes of token_loss_gradient");
    require(teacher.empty() == (loss.divergence == 0) && (teacher.empty() || teacher.size() == logits.size()),
            "the teacher of token_loss_gradient");
    if (logits.rows == 0) return;
    const Tensor wanted = make_tensor(DType::f32, 1, targets.size(), working_memory);  // 32-bit numbers
    copy_from_host(targets.data(), wanted);
    launch("token_loss_gradient", token_loss_gradient_kernel, {to_unsigned(logits.rows), threads}, stream_,
           LossGradientArguments{loss, as<float>(sums.running_max), as<float>(sums.running_sum), as<float>(teacher),
                                 as<float>(teacher_sums.running_max), as<float>(teacher_sums.running_sum),
                                 as<float>(divergences), as<const std::int32_t>(wanted), first_token, logits.columns,
                                 logits.floats()});
}

}  // namespace espalier
