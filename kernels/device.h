#pragma once
/// What a compute device can do, in the field's words. `DecoderBlock`, the methods and perplexity are written once over
/// this interface; `kernels/cpu` implements it with OpenBLAS and OpenMP.
///
/// Common contract. Matrices are contiguous and row-major; T tokens are rows. Tensors are float32 unless a line says
/// otherwise. Operations are asynchronous in principle (a device may have a stream) and ordered among themselves; those
/// that return a number wait for it. Outputs must not alias inputs unless "in place" is said. Results depend on shapes
/// and values only, never on the number of threads: every sum has an order fixed by the shape. Shape errors are bugs
/// (BugError).

#include "src/base/pruning_pattern.h"
#include "src/base/tensor.h"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

namespace espalier {

class Device;

/// Owns device memory of one tensor; returned by Device::make_tensor. Movable. An empty Tensor owns nothing.
class Tensor {
  public:
    Tensor() = default;
    Tensor(Device& device, TensorView view) : device_(&device), view_(view) {}
    Tensor(Tensor&& other) noexcept;
    Tensor& operator=(Tensor&& other) noexcept;
    Tensor(const Tensor&) = delete;
    Tensor& operator=(const Tensor&) = delete;
    ~Tensor();

    const TensorView& view() const { return view_; }
    operator TensorView() const { return view_; }  // NOLINT(google-explicit-constructor): a Tensor is a view that owns
    bool empty() const { return view_.empty(); }

  private:
    Device* device_ = nullptr;
    TensorView view_;
};

/// Score of weight (i, j): |W_ij| x (alpha G_ij + c_j). A term that is absent (empty view) drops out: without both the
/// score is |W_ij|, without `gradient` it is Wanda's, with both it is Wanda++'s regional gradient score.
struct ScoreTerms {
    TensorView gradient;     ///< G [rows, in], or empty
    TensorView input_norms;  ///< c [1, in], or empty
    float alpha = 0;
};

/// One RMSprop step (Tieleman & Hinton 2012, no momentum): v <- decay v + (1 - decay) g^2; w <- w - rate g / (sqrt(v) +
/// epsilon).
struct RmspropStep {
    float learning_rate = 0;
    float decay = 0.99F;
    float epsilon = 1e-8F;
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

class Device {
  public:
    Device() = default;
    Device(const Device&) = delete;
    Device& operator=(const Device&) = delete;
    virtual ~Device() = default;

    /// "CPU, 2 threads, OpenBLAS 0.3.21 (Zen)".
    virtual std::string description() const = 0;
    /// Type in which this device wants the weights of the dense passes, for a checkpoint of type `checkpoint`.
    virtual DType compute_dtype(DType checkpoint) const = 0;

    // ---- memory
    // ---------------------------------------------------------------------------------------------------------
    /// Allocates an uninitialised tensor. Throws ResourceError with sizes when there is no room. The device outlives
    /// it.
    Tensor make_tensor(DType dtype, std::size_t rows, std::size_t columns);
    virtual std::byte* allocate(std::size_t bytes) = 0;
    virtual void release(std::byte* memory, std::size_t bytes) noexcept = 0;
    /// Bytes allocated now, and the most so far since construction or reset_peak().
    virtual std::size_t allocated_bytes() const = 0;
    virtual std::size_t peak_bytes() const = 0;
    virtual void reset_peak() = 0;
    /// Copies between host memory and a tensor of the same number of bytes, and waits for it.
    virtual void copy_from_host(const void* host, TensorView destination) = 0;
    virtual void copy_to_host(TensorView source, void* host) = 0;
    virtual void copy(TensorView source, TensorView destination) = 0;
    virtual void fill_zero(TensorView tensor) = 0;
    /// Multiplications and additions of all matrix products so far (2 m n k each).
    virtual double flops() const = 0;

    // ---- matrix products
    // ------------------------------------------------------------------------------------------------
    /// y [T, out] = x [T, in] W^T, plus y itself when `accumulate`. W is [out, in] as checkpoints store it.
    virtual void linear(TensorView x, TensorView weight, bool accumulate, TensorView y) = 0;
    /// dx [T, in] = dy [T, out] W, plus dx itself when `accumulate`.
    virtual void linear_input_gradient(TensorView dy, TensorView weight, bool accumulate, TensorView dx) = 0;
    /// dW [out, in] = dy^T x, handed over in row panels that fit a cache; the whole dW never exists.
    virtual void linear_weight_gradient(TensorView dy, TensorView x, const GradientPanelConsumer& consume) = 0;
    /// The upper triangle of gram [in, in] += that of x^T x (SparseGPT's Hessian without its factor 2). Below it, gram
    /// is left undefined.
    virtual void accumulate_gram(TensorView x, TensorView gram) = 0;

    // ---- parts of a decoder block
    // ---------------------------------------------------------------------------------------
    /// y = x / rms(x) * weight by row; inverse_rms [1, rows] = 1 / sqrt(mean(x^2) + epsilon) is kept for the backward
    /// pass. In place (y = x) is allowed.
    virtual void rms_norm(TensorView x, TensorView weight, float epsilon, TensorView y, TensorView inverse_rms) = 0;
    /// dx = gradient with respect to x, plus dx itself when `accumulate`. In place (dx = dy) is allowed.
    virtual void rms_norm_backward(TensorView x, TensorView weight, TensorView inverse_rms, TensorView dy,
                                   bool accumulate, TensorView dx) = 0;
    /// Rotates x [T, heads * head_size] in place, dimension i with i + head_size / 2; cosine and sine are [T',
    /// head_size / 2] with T' >= T. `inverse` rotates back: the gradient of the rotation.
    virtual void apply_rope(TensorView x, std::size_t head_size, TensorView cosine, TensorView sine, bool inverse) = 0;
    /// Causal softmax(q k^T / sqrt(head_size)) v. q, out [T, query_heads * head_size]; k, v [T, key_value_heads *
    /// head_size]. log_sum_exp [query_heads, T] is kept for the backward pass.
    virtual void attention(TensorView q, TensorView k, TensorView v, const AttentionShape& shape, TensorView out,
                           TensorView log_sum_exp) = 0;
    virtual void attention_backward(TensorView q, TensorView k, TensorView v, TensorView out, TensorView log_sum_exp,
                                    TensorView dout, const AttentionShape& shape, TensorView dq, TensorView dk,
                                    TensorView dv) = 0;
    /// out = silu(gate) * up.
    virtual void silu_multiply(TensorView gate, TensorView up, TensorView out) = 0;
    /// Replaces gate and up by their gradients, given dout.
    virtual void silu_multiply_backward(TensorView dout, TensorView gate, TensorView up) = 0;
    /// y += x, same shape.
    virtual void add(TensorView x, TensorView y) = 0;
    /// y [T, n] += bias [1, n] on every row.
    virtual void add_bias(TensorView bias, TensorView y) = 0;

    // ---- statistics and losses
    // ------------------------------------------------------------------------------------------
    /// sums [1, n] = sum over rows of x^2, float32, rows summed in runs of 32.
    virtual void column_square_sums(TensorView x, TensorView sums) = 0;
    /// sum += x^2, element by element.
    virtual void square_accumulate(TensorView x, TensorView sum) = 0;
    /// x = sqrt(x * scale), element by element.
    virtual void scaled_square_root(float scale, TensorView x) = 0;
    /// direction = y / ||y||_F: the gradient of the regional loss ||y||_F with respect to y. Zero when y is zero.
    virtual void frobenius_direction(TensorView y, TensorView direction) = 0;
    /// Sum of squares in float64.
    virtual double square_sum(TensorView x) = 0;
    /// Sum of (y - target)^2 in float64.
    virtual double squared_error(TensorView y, TensorView target) = 0;
    /// Replaces y by 2 (y - target), the gradient of the summed squared error; returns that sum in float64.
    virtual double squared_error_gradient(TensorView target, TensorView y) = 0;
    /// Number of elements that are infinite or not a number.
    virtual std::size_t count_nonfinite(TensorView x) = 0;
    /// One vocabulary panel of the cross-entropy: logits [T, n] of tokens first_token …; targets [T]. running_max,
    /// running_sum (of exp(logit - max)) and target_logit are [1, T], updated; set up by start_cross_entropy.
    virtual void start_cross_entropy(TensorView running_max, TensorView running_sum, TensorView target_logit) = 0;
    virtual void cross_entropy_panel(TensorView logits, std::size_t first_token, std::span<const std::int32_t> targets,
                                     TensorView running_max, TensorView running_sum, TensorView target_logit) = 0;

    // ---- pruning
    // --------------------------------------------------------------------------------------------------------
    /// Scores the rows of `weight`, removes the worst of each group or row (ties and zeros: the lower column first),
    /// sets removed weights to +0.0 and writes mask (uint8, 1 = kept). Returns the number of scores that are not
    /// finite; when it is not zero, weights and mask are untouched in the rows concerned and must not be used.
    virtual std::size_t score_and_mask(const ScoreTerms& terms, const PruningPattern& pattern, TensorView weight,
                                       TensorView mask) = 0;
    /// One step on `weight` with state `square_average` (v). With a mask, gradient and weight of removed weights are
    /// zero.
    virtual void rmsprop_step(const RmspropStep& step, TensorView gradient, TensorView mask, TensorView square_average,
                              TensorView weight) = 0;
    /// gram [n, n], of which only the upper triangle is read, <- upper Cholesky factor U of (gram + damping mean(diag)
    /// I)^-1, as SparseGPT uses it (U^T U = inverse), zeros below. Inputs never used (zero diagonal) are marked 1 in
    /// `dead_inputs` [1, n] uint8 and get diagonal 1 first. Returns false when the matrix is not positive definite;
    /// gram is then unchanged.
    virtual bool factor_inverse_gram(float damping, TensorView gram, TensorView dead_inputs) = 0;
    /// SparseGPT's column sweep over rows of `weight` [rows, n] with U = `factor`: removes by W^2 / U_jj^2 and spreads
    /// each error over the columns to the right. Column blocks of 128 (the largest multiple of M below for N:M).
    /// `dead_inputs` [1, n] uint8 marks inputs whose weights are zeroed first. Returns the count of non-finite scores
    /// as score_and_mask.
    virtual std::size_t sparsegpt_sweep(TensorView factor, TensorView dead_inputs, const PruningPattern& pattern,
                                        TensorView weight, TensorView mask) = 0;

    // ---- dtypes
    // ---------------------------------------------------------------------------------------------------------
    /// destination = source in destination's dtype, nearest even. f32 <-> f16, bf16. Same dtype copies.
    virtual void convert(TensorView source, TensorView destination) = 0;
    /// Rounds float32 values to what `dtype` can hold, in place.
    virtual void round_to(DType dtype, TensorView values) = 0;
};

/// The CPU device. `threads` 0: what OpenMP offers. Bits do not depend on it.
std::unique_ptr<Device> make_cpu_device(int threads);

/// What is known about NVIDIA GPUs on this machine, for `doctor` and for the refusal of `--device cuda`.
struct CudaAvailability {
    bool compiled_in = false;
    int gpus = 0;
    std::string explanation;  ///< one line: "built without CUDA …", "no driver …", "2 GPUs: NVIDIA H100 …"
};
CudaAvailability cuda_availability();

}  // namespace espalier
