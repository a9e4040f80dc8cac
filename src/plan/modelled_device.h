#pragma once
/// A device that computes nothing: every operation lets the time pass that a DeviceModel says, products are counted,
/// and memory is given out as numbers. The program's own schedule runs on it, so a plan cannot differ from the run in
/// what it counts.

#include "kernels/device.h"
#include "src/base/clock.h"
#include "src/plan/device_model.h"

#include <mutex>

namespace espalier {

/// What the time of a device goes into.
struct DeviceSeconds {
    double products = 0;   ///< matrix products and attention
    double memory = 0;     ///< operations bound by memory
    double host_link = 0;  ///< copies that operations wait for

    DeviceSeconds& operator+=(const DeviceSeconds& other);
    DeviceSeconds& operator-=(const DeviceSeconds& other);
};

class ModelledDevice final : public Device {
  public:
    /// Both outlive it. It counts what tensors would take beyond the model's memory, too.
    ModelledDevice(const DeviceModel& model, VirtualClock& clock);

    std::string description() const override { return model_.name + " (modelled)"; }
    std::string arithmetic() const override { return "none"; }
    std::size_t multiprocessors() const override { return model_.is_gpu ? model_.multiprocessors : 0; }
    DType compute_dtype(DType weights) const override { return model_.is_gpu ? weights : DType::f32; }
    void set_float32_products(Float32Products products) override { float32_products_ = products; }
    void* stream() const override { return nullptr; }
    void synchronize() override { wait_for_copies(); }
    int add_wait_poll(std::function<void()> /*poll*/) override { return 0; }
    void remove_wait_poll(int /*id*/) noexcept override {}

    std::byte* allocate_host(std::size_t bytes) override;
    void release_host(std::byte* memory, std::size_t bytes) noexcept override;
    void copy_from_host(const void* host, TensorView destination) override;
    void copy_to_host(TensorView source, void* host) override;
    void copy(TensorView source, TensorView destination) override;
    std::uint64_t start_copy(TensorView source, TensorView destination) override;
    void wait_for_copy(std::uint64_t copy) override;
    std::uint64_t last_copy() const override { return copies_; }
    void fill_zero(TensorView tensor) override { touch(tensor.bytes()); }
    void begin_range(const char* /*name*/) override {}
    void end_range() noexcept override {}
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

    /// The most of page-locked memory that was held at a time.
    std::size_t host_peak_bytes() const;
    /// Seconds spent so far.
    const DeviceSeconds& spent() const { return spent_; }

  private:
    std::byte* allocate(std::size_t bytes) override;
    void release(std::byte* /*memory*/) noexcept override {}
    const ProductRates& rates_of(DType factors) const;
    void multiply(double flops, double rate);
    void touch(std::size_t bytes);
    /// What a GPU's operations take while they run.
    Tensor parts_of_a_sum();
    Tensor copied_from_host(std::size_t numbers);
    /// Device addresses are numbers in a range of their own.
    bool is_on_host(TensorView tensor) const;
    void move(TensorView source, TensorView destination);
    void cross_host_link(std::size_t bytes);
    void wait_for_copies();

    const DeviceModel& model_;
    VirtualClock& clock_;
    Float32Products float32_products_ = Float32Products::exact;
    static constexpr std::uintptr_t first_address = std::uintptr_t{1} << 44;
    std::uintptr_t next_address_ = first_address;
    mutable std::mutex host_mutex_;
    std::size_t host_allocated_ = 0, host_peak_ = 0;
    std::uint64_t copies_ = 0;
    double copies_end_ = 0;  ///< when the last of the copies beside the operations is done
    double flops_ = 0;
    DeviceSeconds spent_;
};

}  // namespace espalier
