#pragma once
/// The Device interface on one NVIDIA GPU: cuBLASLt for matrix products, kernels of our own for the rest, everything in
/// one stream. Tensors come from CUDA's stream-ordered memory pool, which keeps what it has until the device ends.

#include "kernels/cuda/matrix_products.h"
#include "kernels/cuda/page_locked_memory.h"
#include "kernels/cuda/stream.h"
#include "kernels/device.h"

#include <cuda_runtime_api.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <span>
#include <string>
#include <vector>

namespace espalier {

class CudaDevice final : public Device {
  public:
    /// Throws InputError when the GPU or its driver cannot be used, ResourceError when it has less memory than the
    /// budget.
    explicit CudaDevice(const CudaOptions& options);
    ~CudaDevice() override;

    std::string description() const override;
    std::string arithmetic() const override;
    std::size_t multiprocessors() const override { return multiprocessors_; }
    DType compute_dtype(DType weights) const override { return weights; }
    void set_float32_products(Float32Products products) override { float32_products_ = products; }
    void* stream() const override { return stream_; }
    void synchronize() override;
    int add_wait_poll(std::function<void()> poll) override;
    void remove_wait_poll(int id) noexcept override { wait_polls_.erase(id); }

    std::byte* allocate_host(std::size_t bytes) override;
    void release_host(std::byte* memory, std::size_t bytes) noexcept override;
    void copy_from_host(const void* host, TensorView destination) override;
    void copy_to_host(TensorView source, void* host) override;
    void copy(TensorView source, TensorView destination) override;
    std::uint64_t start_copy(TensorView source, TensorView destination) override;
    void wait_for_copy(std::uint64_t copy) override;
    std::uint64_t last_copy() const override { return copies_; }
    void fill_zero(TensorView tensor) override;
    void begin_range(const char* name) override;
    void end_range() noexcept override;
    double flops() const override { return flops_; }

    void linear(TensorView x, TensorView weight, TensorView added, TensorView y) override;
    void linear_input_gradient(TensorView dy, TensorView weight, bool accumulate, TensorView dx) override;
    void linear_weight_gradients(TensorView x, std::span<const WeightGradient> gradients) override;
    void accumulate_gram(TensorView x, TensorView gram) override;

    void rms_norm(TensorView x, TensorView weight, float epsilon, TensorView y, TensorView inverse_rms) override;
    void rms_norm_backward(TensorView x, TensorView weight, TensorView inverse_rms, TensorView dy, bool accumulate,
                           TensorView dx) override;
    void apply_rope(TensorView x, std::size_t head_size, TensorView cosine, TensorView sine, bool inverse) override;
    void attention(TensorView q, TensorView k, TensorView v, const AttentionShape& shape, TensorView out,
                   TensorView log_sum_exp) override;
    void attention_backward(TensorView q, TensorView k, TensorView v, TensorView out, TensorView log_sum_exp,
                            TensorView dout, const AttentionShape& shape, TensorView dq, TensorView dk,
                            TensorView dv) override;
    void attention_step(TensorView q, TensorView k, TensorView v, const AttentionShape& shape, std::size_t position,
                        TensorView key_cache, TensorView value_cache, TensorView out) override;
    void sample_tokens(TensorView logits, const SamplingRule& rule, std::size_t first_sequence, std::size_t position,
                       TensorView tokens) override;
    void silu_multiply(TensorView gate, TensorView up, TensorView out) override;
    void silu_multiply_backward(TensorView dout, TensorView gate, TensorView up) override;
    void add(TensorView x, TensorView y) override;
    void subtract(TensorView a, TensorView b, TensorView difference) override;
    void sum(TensorView a, TensorView difference, TensorView result) override;
    void add_bias(TensorView bias, TensorView y) override;

    void column_square_sums(TensorView x, TensorView sums) override;
    void column_sum_roots(TensorView x, double scale, TensorView roots) override;
    void square_accumulate(TensorView x, TensorView sum) override;
    void scaled_square_root(float scale, TensorView x) override;
    void frobenius_direction(TensorView y, TensorView square_sum, float scale, TensorView direction) override;
    void square_sum(TensorView x, TensorView sum) override;
    void squared_error(TensorView y, TensorView target, TensorView sum) override;
    void squared_error_gradient(TensorView target, TensorView y) override;
    void relative_error_gradient(TensorView target, TensorView y, TensorView sum) override;
    void count_nonfinite(TensorView x, TensorView count) override;
    void count_zeros(TensorView x, TensorView count) override;
    void compare_masks(TensorView mask, TensorView before, TensorView removed, TensorView changed) override;
    void count_unchanged(TensorView weight, TensorView before, TensorView mask, TensorView kept,
                         TensorView unchanged) override;
    void scatter_rows(TensorView source, std::span<const std::uint32_t> source_rows,
                      std::span<const std::uint32_t> rows, TensorView destination) override;
    void start_cross_entropy(TensorView running_max, TensorView running_sum, TensorView target_logit) override;
    void cross_entropy_panel(TensorView logits, std::size_t first_token, std::span<const std::int32_t> targets,
                             TensorView running_max, TensorView running_sum, TensorView target_logit) override;
    void token_loss_gradient(const LossWeights& loss, const LogitSums& sums, std::size_t first_token,
                             std::span<const std::int32_t> targets, TensorView teacher, const LogitSums& teacher_sums,
                             TensorView divergences, TensorView logits) override;

    void add_low_rank_update(TensorView base, TensorView a, TensorView b, float scale, ZeroWeights zeros,
                             TensorView weight) override;
    void dropout(const DropoutMask& mask, float kept, float dropped, bool accumulate, TensorView x,
                 TensorView y) override;
    void scale_where_nonzero(TensorView weight, float scale, TensorView x) override;
    void rms_norm_gain_gradient(TensorView x, TensorView inverse_rms, TensorView dy, TensorView gradient) override;

    void score_and_mask(const ScoreTerms& terms, const PruningPattern& pattern, TensorView weight, TensorView mask,
                        TensorView unusable) override;
    void optimizer_step(const OptimizerStep& step, const OptimizedRows& rows) override;
    bool factor_inverse_gram(float damping, TensorView gram, TensorView dead_inputs) override;
    void sparsegpt_sweep(TensorView factor, TensorView dead_inputs, const PruningPattern& pattern, SweepMask origin,
                         TensorView weight, TensorView mask, TensorView unusable) override;

    void convert(TensorView source, TensorView destination) override;
    void round_to(DType dtype, TensorView values) override;

  private:
    std::byte* allocate(std::size_t bytes) override;
    void release(std::byte* memory) noexcept override;
    void use_gpu() const;
    /// float32 x [m, n] transposed, [n, m].
    Tensor transposed(TensorView x);
    /// Adds a product's multiplications and additions to the count.
    void count_product(std::size_t m, std::size_t n, std::size_t k);

    int gpu_;  ///< selected before the streams are made, which belong to it
    std::size_t multiprocessors_ = 1;
    std::size_t shared_bytes_of_block_ = 0;  ///< shared memory that a block may ask for
    cuda::Stream stream_, copy_stream_;
    cuda::Event reached_, may_copy_;
    std::array<cuda::Event, 32> copied_;  ///< of the last copies, by number
    std::uint64_t copies_ = 0;
    std::unique_ptr<cuda::MatrixProducts> products_;
    Float32Products float32_products_ = Float32Products::exact;
    std::map<int, std::function<void()>> wait_polls_;
    int next_wait_poll_ = 0;
    double flops_ = 0;
    std::mutex host_mutex_;
    std::vector<PageLockedMemory> host_memory_;         ///< all that is page-locked
    std::multimap<std::size_t, std::byte*> free_host_;  ///< page-locking is slow: kept for the next of a size
};

}  // namespace espalier
