#pragma once
/// What a compute device can do, in the field's words. `DecoderBlock`, the methods and perplexity are written once over
/// this interface; `kernels/cpu` implements it with OpenBLAS and OpenMP, `kernels/cuda` with cuBLASLt and kernels of
/// its own.
///
/// Common contract. Matrices are contiguous and row-major; T tokens are rows. Tensors are float32 unless a line says
/// otherwise; "compute type" is the type of the weights of a pass and of the activations between its matrix products:
/// float32 on the CPU, float32, float16 or bfloat16 on a GPU. Whatever the types, sums are float32 or wider. Operations
/// are asynchronous (a device may have a stream) and ordered among themselves; only those that return a value or copy
/// to host memory wait. Numbers for the host go into a float64 or uint64 element of device memory (DeviceNumbers) and
/// are read together. Outputs must not alias inputs unless "in place" is said. Results depend on shapes and values
/// only, never on the number of threads: every sum has an order fixed by the shape. Shape errors are bugs (BugError).

#include "kernels/dropout.h"
#include "kernels/memory_ledger.h"
#include "kernels/optimizer_step.h"
#include "kernels/sampling.h"
#include "src/base/pruning_pattern.h"
#include "src/base/tensor.h"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace espalier {

class Device;

/// Names the memory that kernels take and give back themselves.
constexpr const char* working_memory = "working memory of kernels";

/// Owns device memory of one tensor; returned by Device::make_tensor. Movable. An empty Tensor owns nothing.
class Tensor {
  public:
    Tensor() = default;
    Tensor(Tensor&& other) noexcept;
    Tensor& operator=(Tensor&& other) noexcept;
    Tensor(const Tensor&) = delete;
    Tensor& operator=(const Tensor&) = delete;
    ~Tensor();

    const TensorView& view() const { return view_; }
    operator TensorView() const { return view_; }  // NOLINT(google-explicit-constructor): a Tensor is a view that owns
    bool empty() const { return view_.empty(); }

  private:
    friend class Device;
    Tensor(Device& device, TensorView view, const char* name) : device_(&device), view_(view), name_(name) {}

    Device* device_ = nullptr;
    TensorView view_;
    const char* name_ = nullptr;
};

/// Score of weight (i, j): |W_ij| x (alpha G_ij + c_j). A term that is absent (empty view) drops out: without both the
/// score is |W_ij|, without `gradient` it is Wanda's, with both it is Wanda++'s regional gradient score.
struct ScoreTerms {
    TensorView gradient;     ///< G [rows, in], or empty
    TensorView input_norms;  ///< c [1, in], or empty
    float alpha = 0;
};

/// Sizes of one attention call. Query head h reads key/value head h / (query_heads / key_value_heads).
struct AttentionShape {
    std::size_t query_heads = 0;
    std::size_t key_value_heads = 0;
    std::size_t head_size = 0;
};

/// Receives rows [row_begin, row_begin + panel.rows) of a float32 weight gradient. `panel` is valid during the call
/// only. A device may call it concurrently for different panels; operations of the same device may be used inside.
using GradientPanelConsumer = std::function<void(std::size_t row_begin, TensorView panel)>;

/// One of the weight gradients that share an input.
struct WeightGradient {
    TensorView dy;
    GradientPanelConsumer consume;
    std::function<void()> finished;  ///< called after the last panel, before the next gradient begins
};

/// What becomes of weights that are zero when an update is added to their matrix: they are updated like the others, or
/// stay zero, and so does their share of a gradient. The zeros of a pruned matrix are its mask.
enum class ZeroWeights { updated, kept };

/// A loss over next tokens: `language_model` times the cross-entropy with the text's own next tokens, plus `divergence`
/// times the Kullback-Leibler divergence from a teacher's distribution.
struct LossWeights {
    float language_model = 1, divergence = 0;
};

/// What is known of each row's logits after all panels of the vocabulary have been in cross_entropy_panel, [1, T] each.
struct LogitSums {
    TensorView running_max, running_sum, target_logit;
};

/// Who decides which weights a SparseGPT sweep removes: the sweep itself, column by column, or the mask it is given.
enum class SweepMask { chosen, given };

/// How products of float32 matrices are computed: exactly rounded inputs, or inputs rounded to TensorFloat-32 (10
/// mantissa bits), which GPUs multiply about eight times faster. Sums are float32 in both.
enum class Float32Products { exact, tf32 };

/// Page-locked host memory, from and to which `copy` and `convert` go while the host goes on.
class HostBuffer {
  public:
    HostBuffer() = default;
    HostBuffer(Device& device, std::size_t bytes);
    HostBuffer(HostBuffer&& other) noexcept;
    HostBuffer& operator=(HostBuffer&& other) noexcept;
    HostBuffer(const HostBuffer&) = delete;
    HostBuffer& operator=(const HostBuffer&) = delete;
    ~HostBuffer();

    std::span<std::byte> bytes() const { return {data_, size_}; }
    /// [rows, columns] of `dtype` at byte `offset`, for Device::copy and Device::convert.
    TensorView view(DType dtype, std::size_t offset, std::size_t rows, std::size_t columns) const;
    bool empty() const { return data_ == nullptr; }

  private:
    Device* device_ = nullptr;
    std::byte* data_ = nullptr;
    std::size_t size_ = 0;
};

class Device {
  public:
    /// Tensors may take `budget` bytes together.
    explicit Device(std::size_t budget, OverBudget excess = OverBudget::refused) : memory_(budget, excess) {}
    Device(const Device&) = delete;
    Device& operator=(const Device&) = delete;
    virtual ~Device() = default;

    /// "CPU, 2 threads, OpenBLAS 0.3.21 (Zen)".
    virtual std::string description() const = 0;
    /// What decides how results are rounded: "OpenBLAS Haswell", "NVIDIA H100 80GB HBM3". A run goes on only with the
    /// same.
    virtual std::string arithmetic() const = 0;
    /// Of a GPU; none on a CPU. Decides how much memory some operations take while they run.
    virtual std::size_t multiprocessors() const = 0;
    /// Compute type of passes with weights of type `weights`.
    virtual DType compute_dtype(DType weights) const = 0;
    /// Applies to the products that follow. The CPU always multiplies exactly.
    virtual void set_float32_products(Float32Products products) = 0;
    /// The stream that operations are ordered in, for a communicator of the same device: a cudaStream_t, or null on the
    /// CPU.
    virtual void* stream() const = 0;
    /// Waits for all operations so far.
    virtual void synchronize() = 0;
    /// `poll` runs again and again while an operation waits, until it is removed; it may throw. A communicator watches
    /// its peers with it. Returns what removes it.
    virtual int add_wait_poll(std::function<void()> poll) = 0;
    virtual void remove_wait_poll(int id) noexcept = 0;

    // ---- memory
    /// Allocates an uninitialised tensor. `name`, a literal, says in plans and errors what the memory is for: "hidden
    /// states". Throws ResourceError with sizes and names when there is no room. The device outlives the tensor.
    Tensor make_tensor(DType dtype, std::size_t rows, std::size_t columns, const char* name);
    /// What tensors take, by name, and may take together; without a limit (the CPU) that is the largest number.
    const MemoryLedger& memory() const { return memory_; }
    void reset_memory_peak() { memory_.reset_peak(); }
    /// Page-locked memory for HostBuffer. Throws ResourceError. The only operations that any thread may call.
    virtual std::byte* allocate_host(std::size_t bytes) = 0;
    virtual void release_host(std::byte* memory, std::size_t bytes) noexcept = 0;
    /// Copies between host memory and a tensor of the same number of bytes, and waits for it.
    virtual void copy_from_host(const void* host, TensorView destination) = 0;
    virtual void copy_to_host(TensorView source, void* host) = 0;
    /// destination = source, of one size. One of the two may lie in a HostBuffer, which must then stay as it is until
    /// `synchronize`.
    virtual void copy(TensorView source, TensorView destination) = 0;
    /// destination = source beside the operations: begins after those called so far and runs while later ones do.
    /// Copies keep their order among themselves. One of the two may lie in a HostBuffer. Neither may be released or
    /// reused by operations before wait_for_copy, or by the host before synchronize. Returns the copy's number, from 1.
    virtual std::uint64_t start_copy(TensorView source, TensorView destination) = 0;
    /// Operations called from now on begin after that copy; 0 is no copy.
    virtual void wait_for_copy(std::uint64_t copy) = 0;
    virtual std::uint64_t last_copy() const = 0;
    virtual void fill_zero(TensorView tensor) = 0;
    /// Marks a phase for a profiler, until end_range(); ranges nest. Use DeviceRange.
    virtual void begin_range(const char* name) = 0;
    virtual void end_range() noexcept = 0;
    /// Multiplications and additions of all matrix products so far (2 m n k each).
    virtual double flops() const = 0;

    // ---- matrix products
    // x, dy and W have the compute type; y and dx have it too, or are float32.
    /// y [T, out] = x [T, in] W^T, plus `added` [T, out], of y's type, when it is not empty; it may be y itself. W is
    /// [out, in] as checkpoints store it.
    virtual void linear(TensorView x, TensorView weight, TensorView added, TensorView y) = 0;
    /// dx [T, in] = dy [T, out] W, plus dx itself when `accumulate`.
    virtual void linear_input_gradient(TensorView dy, TensorView weight, bool accumulate, TensorView dx) = 0;
    /// float32 dW [out, in] = dy^T x of one layer after the other, all with the input x, handed over in row panels that
    /// fit a cache; no whole dW ever exists.
    virtual void linear_weight_gradients(TensorView x, std::span<const WeightGradient> gradients) = 0;
    void linear_weight_gradient(TensorView dy, TensorView x, const GradientPanelConsumer& consume) {
        const WeightGradient gradient{dy, consume, [] {}};
        linear_weight_gradients(x, {&gradient, 1});
    }
    /// The upper triangle of float32 gram [in, in] += that of x^T x (SparseGPT's Hessian without its factor 2). Below
    /// it, gram is left undefined.
    virtual void accumulate_gram(TensorView x, TensorView gram) = 0;

    // ---- parts of a decoder block
    // q, k, v, gate, up, activations and their gradients have the compute type; the residual stream is float32.
    /// y = x / rms(x) * weight by row; inverse_rms [1, rows] = 1 / sqrt(mean(x^2) + epsilon) is kept for the backward
    /// pass. x and y are float32 or of the compute type. In place (y = x) is allowed.
    virtual void rms_norm(TensorView x, TensorView weight, float epsilon, TensorView y, TensorView inverse_rms) = 0;
    /// dx = gradient with respect to x, plus dx itself when `accumulate`. x, dy and dx have one type, float32 or the
    /// compute type. In place (dx = dy) is allowed.
    virtual void rms_norm_backward(TensorView x, TensorView weight, TensorView inverse_rms, TensorView dy,
                                   bool accumulate, TensorView dx) = 0;
    /// Rotates x [T, heads * head_size] in place: of each head dimension i with i + width / 2, where cosine and sine
    /// are [T', width / 2] with T' >= T and width <= head_size; what lies behind `width` stays. `inverse` rotates back:
    /// the gradient of the rotation.
    virtual void apply_rope(TensorView x, std::size_t head_size, TensorView cosine, TensorView sine, bool inverse) = 0;
    /// Causal softmax(q k^T / sqrt(head_size)) v. q, out [T, query_heads * head_size]; k, v [T, key_value_heads *
    /// head_size]. log_sum_exp [query_heads, T] is kept for the backward pass.
    virtual void attention(TensorView q, TensorView k, TensorView v, const AttentionShape& shape, TensorView out,
                           TensorView log_sum_exp) = 0;
    virtual void attention_backward(TensorView q, TensorView k, TensorView v, TensorView out, TensorView log_sum_exp,
                                    TensorView dout, const AttentionShape& shape, TensorView dq, TensorView dk,
                                    TensorView dv) = 0;
    /// Attention of one more token of each of B sequences: k and v [B, key_value_heads * head_size] become row
    /// `position` of each sequence's part of the caches [B * capacity, key_value_heads * head_size], and out [B,
    /// query_heads * head_size] = softmax(q K^T / sqrt(head_size)) V over its rows up to there. head_size is at most
    /// 256 on a GPU.
    virtual void attention_step(TensorView q, TensorView k, TensorView v, const AttentionShape& shape,
                                std::size_t position, TensorView key_cache, TensorView value_cache, TensorView out) = 0;
    /// out = silu(gate) * up.
    virtual void silu_multiply(TensorView gate, TensorView up, TensorView out) = 0;
    /// Replaces gate and up by their gradients, given dout.
    virtual void silu_multiply_backward(TensorView dout, TensorView gate, TensorView up) = 0;
    /// y += x, same shape, both float32.
    virtual void add(TensorView x, TensorView y) = 0;
    /// difference = a - b, rounded to its own type; a and b float32.
    virtual void subtract(TensorView a, TensorView b, TensorView difference) = 0;
    /// result = a + difference, the inverse; a and result float32.
    virtual void sum(TensorView a, TensorView difference, TensorView result) = 0;
    /// y [T, n] += float32 bias [1, n] on every row.
    virtual void add_bias(TensorView bias, TensorView y) = 0;

    // ---- statistics and losses
    /// sums [1, n] = sum over rows of x^2 in float32, rows summed in runs of 32 and the runs in order. x has the
    /// compute type.
    virtual void column_square_sums(TensorView x, TensorView sums) = 0;
    /// float32 roots [1, n] = sqrt(scale * sum over rows of x), summed in float64 in row order. x is float32.
    virtual void column_sum_roots(TensorView x, double scale, TensorView roots) = 0;
    /// sum += x^2, element by element.
    virtual void square_accumulate(TensorView x, TensorView sum) = 0;
    /// x = sqrt(x * scale), element by element.
    virtual void scaled_square_root(float scale, TensorView x) = 0;
    /// direction = scale y / ||y||_F, with ||y||_F^2 in the float64 element `square_sum`: `scale` times the gradient of
    /// the regional loss ||y||_F with respect to y. Zero when y is zero.
    virtual void frobenius_direction(TensorView y, TensorView square_sum, float scale, TensorView direction) = 0;
    /// The float64 element `sum` = sum of squares.
    virtual void square_sum(TensorView x, TensorView sum) = 0;
    /// The float64 element `sum` = sum of (y - target)^2.
    virtual void squared_error(TensorView y, TensorView target, TensorView sum) = 0;
    /// Replaces y by 2 (y - target), the gradient of the summed squared error.
    virtual void squared_error_gradient(TensorView target, TensorView y) = 0;
    /// The float64 element `sum` = sum over rows of ||y - target||^2 / ||target||^2, in float64; y is replaced by its
    /// gradient. Rows whose target is zero count nothing.
    virtual void relative_error_gradient(TensorView target, TensorView y, TensorView sum) = 0;
    /// The uint64 element `count` += number of elements of x (float32 or of the compute type) that are infinite or not
    /// a number.
    virtual void count_nonfinite(TensorView x, TensorView count) = 0;
    /// The uint64 element `count` += number of elements of x (float32 or of the compute type) that are zero.
    virtual void count_zeros(TensorView x, TensorView count) = 0;
    /// The uint64 elements `removed` += zeros of `mask` (uint8), `changed` += places where it differs from `before`.
    virtual void compare_masks(TensorView mask, TensorView before, TensorView removed, TensorView changed) = 0;
    /// The uint64 elements `kept` += ones of `mask` (uint8), `unchanged` += those of them where `weight` equals
    /// `before`, both of one type, float32 or the compute type.
    virtual void count_unchanged(TensorView weight, TensorView before, TensorView mask, TensorView kept,
                                 TensorView unchanged) = 0;
    /// destination [T, n] row rows[i] = source [m, n] row source_rows[i], widened to float32: a panel of an embedding.
    virtual void scatter_rows(TensorView source, std::span<const std::uint32_t> source_rows,
                              std::span<const std::uint32_t> rows, TensorView destination) = 0;
    /// One vocabulary panel of the cross-entropy: logits [T, n] of tokens first_token …; targets [T]. running_max,
    /// running_sum (of exp(logit - max)) and target_logit are [1, T], updated; set up by start_cross_entropy.
    virtual void start_cross_entropy(TensorView running_max, TensorView running_sum, TensorView target_logit) = 0;
    virtual void cross_entropy_panel(TensorView logits, std::size_t first_token, std::span<const std::int32_t> targets,
                                     TensorView running_max, TensorView running_sum, TensorView target_logit) = 0;

    /// One panel of the second pass over the vocabulary. Replaces logits z [T, n] of tokens first_token … by the
    /// gradient of each row's loss: language_model (softmax(z) - onehot(target)) + divergence (softmax(z) -
    /// softmax(teacher)). `sums` are of all panels, and so are `teacher_sums` of the logits `teacher` [T, n]; both
    /// teacher's are empty when divergence is 0. Otherwise `divergences` [1, T] += the panel's share of the divergence.
    virtual void token_loss_gradient(const LossWeights& loss, const LogitSums& sums, std::size_t first_token,
                                     std::span<const std::int32_t> targets, TensorView teacher,
                                     const LogitSums& teacher_sums, TensorView divergences, TensorView logits) = 0;

    /// uint64 tokens [1, B] drawn from logits [B, vocabulary] as the rule says, for token `position` of the sequences
    /// from `first_sequence` on. Sums are float64; a share `top_p` takes all tokens that are as likely as its last.
    virtual void sample_tokens(TensorView logits, const SamplingRule& rule, std::size_t first_sequence,
                               std::size_t position, TensorView tokens) = 0;

    // ---- fine-tuning
    // ----------------------------------------------------------------------------------------------------
    /// weight = base + scale B A, rounded to the type of weight and base (float32 or the compute type); a [rank, in]
    /// and b [out, rank] are float32. No whole B A ever exists. In place (weight = base) is allowed.
    virtual void add_low_rank_update(TensorView base, TensorView a, TensorView b, float scale, ZeroWeights zeros,
                                     TensorView weight) = 0;
    /// x <- scale x, but 0 where `weight` (float32 or of the compute type) is zero; without a weight (empty) everywhere
    /// scale x.
    virtual void scale_where_nonzero(TensorView weight, float scale, TensorView x) = 0;
    /// y [T, n] = x times `dropped` where the mask drops an element, times `kept` elsewhere; plus y itself when
    /// `accumulate`. x has the compute type, y has it too, or is float32. In place (y = x) is allowed.
    virtual void dropout(const DropoutMask& mask, float kept, float dropped, bool accumulate, TensorView x,
                         TensorView y) = 0;
    /// gradient [1, n] = sum over rows of dy x inverse_rms: of the gain of rms_norm. x and dy are of one type, float32
    /// or the compute type; rows are summed in runs of 32 and the runs in order. inverse_rms [1, rows].
    virtual void rms_norm_gain_gradient(TensorView x, TensorView inverse_rms, TensorView dy, TensorView gradient) = 0;

    // ---- pruning
    /// Scores the rows of `weight`, removes the worst of each group or row (ties and zeros: the lower column first),
    /// sets removed weights to +0.0 and writes mask (uint8, 1 = kept). `weight` is float32 or of the compute type. The
    /// uint64 element `unusable` += number of scores that are not finite; when it is not zero, weights and mask must
    /// not be used.
    virtual void score_and_mask(const ScoreTerms& terms, const PruningPattern& pattern, TensorView weight,
                                TensorView mask, TensorView unusable) = 0;
    /// One step of an optimiser on rows of a matrix.
    virtual void optimizer_step(const OptimizerStep& step, const OptimizedRows& rows) = 0;
    /// gram [n, n], of which only the upper triangle is read, <- upper Cholesky factor U of (gram + damping mean(diag)
    /// I)^-1, as SparseGPT uses it (U^T U = inverse), zeros below. Inputs never used (zero diagonal) are marked 1 in
    /// `dead_inputs` [1, n] uint8 and get diagonal 1 first. Returns false when the matrix is not positive definite;
    /// gram is then unchanged.
    virtual bool factor_inverse_gram(float damping, TensorView gram, TensorView dead_inputs) = 0;
    /// SparseGPT's column sweep over rows of `weight` [rows, n] with U = `factor`: removes by W^2 / U_jj^2, or what
    /// `mask` says, and spreads each error over the columns to the right. Column blocks of 128 (the largest multiple of
    /// M below for N:M). `dead_inputs` [1, n] uint8 marks inputs whose weights are zeroed first. Writes a chosen mask
    /// and counts non-finite scores as score_and_mask; a given mask is only read, and has no scores.
    virtual void sparsegpt_sweep(TensorView factor, TensorView dead_inputs, const PruningPattern& pattern,
                                 SweepMask origin, TensorView weight, TensorView mask, TensorView unusable) = 0;

    // ---- dtypes
    /// destination = source in destination's dtype, nearest even; one of the two is float32, or both are of one type.
    /// One of the two may lie in a HostBuffer, as for copy.
    virtual void convert(TensorView source, TensorView destination) = 0;
    /// Rounds float32 values to what `dtype` can hold, in place.
    virtual void round_to(DType dtype, TensorView values) = 0;

  protected:
    void set_memory_budget(std::size_t bytes) { memory_ = MemoryLedger(bytes); }  // before there are tensors
    /// At least one byte, aligned for any operation; null when there is none left.
    virtual std::byte* allocate(std::size_t bytes) = 0;
    virtual void release(std::byte* memory) noexcept = 0;

  private:
    friend class Tensor;
    MemoryLedger memory_;
};

/// A phase of the work as profilers show it (NVTX), from construction to destruction.
class DeviceRange {
  public:
    DeviceRange(Device& device, const char* name) : device_(device) { device.begin_range(name); }
    DeviceRange(const DeviceRange&) = delete;
    DeviceRange& operator=(const DeviceRange&) = delete;
    ~DeviceRange() { device_.end_range(); }

  private:
    Device& device_;
};

/// The CPU device. `threads` 0: what OpenMP offers. Bits do not depend on it.
std::unique_ptr<Device> make_cpu_device(int threads);

/// What of a GPU's `available` memory is left to CUDA's context, kernels that are loaded later, cuBLAS, cuSOLVER and
/// NCCL when no budget is given. A run (of what is free) and a plan (of a GPU's whole memory) keep back the same.
std::size_t reserved_gpu_bytes(std::size_t available);

/// What a CudaDevice is made with.
struct CudaOptions {
    int gpu = 0;                    ///< index among the visible ones
    std::size_t memory_budget = 0;  ///< bytes of device memory that tensors may take; 0: what is free
};

/// A GPU. Throws InputError when this build, this machine or its driver cannot serve one. From then on the calling
/// thread uses that GPU.
std::unique_ptr<Device> make_cuda_device(const CudaOptions& options);

/// What is known about NVIDIA GPUs on this machine, for `doctor` and for the choice of a device.
struct CudaAvailability {
    int gpus = 0;                    ///< 0 also when one of them is not usable
    std::string explanation;         ///< one line: "built without CUDA …", "no driver …", "2 GPUs: NVIDIA H100 …"
    std::vector<std::string> uuids;  ///< of the visible GPUs: two ranks must not share one unnoticed
};
CudaAvailability cuda_availability();

/// Whether this program can use a GPU on some machine: whether its CUDA module (cuda_module.h) is there. Asks no
/// driver.
bool built_with_cuda();

}  // namespace espalier
