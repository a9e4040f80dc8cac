#pragma once
/// What the two halves of a decoder block share: who watches their passes, and the steps that both take.

#include "kernels/device.h"
#include "src/model/block_layout.h"
#include "src/model/block_weights.h"
#include "src/model/model_config.h"

#include <cstddef>
#include <initializer_list>

namespace espalier {

/// Sees the input [T, in] of linear layers during a forward pass, once for each input of the block.
class LinearInputObserver {
  public:
    virtual ~LinearInputObserver() = default;
    virtual void observe(LinearInput input, TensorView x) = 0;
};

/// Takes the weight gradients of a backward pass as they arise; none is stored by the block.
class WeightGradientSink {
  public:
    virtual ~WeightGradientSink() = default;
    /// The factors of a layer's gradient dy^T x, with x [T, in] and dy [T, out] in the type of the pass. A sink that
    /// takes them returns true and gets no panels of this layer; `finished` follows. Both are valid during the call
    /// only.
    virtual bool consume_factors(LinearLayer /*layer*/, TensorView /*x*/, TensorView /*dy*/) { return false; }
    /// Rows [row_begin, row_begin + panel.rows) of the gradient of `layer`. May be called concurrently for different
    /// panels. The weight of `layer` is no longer needed by this backward pass and may be changed.
    virtual void consume(LinearLayer layer, std::size_t row_begin, TensorView panel) = 0;
    /// All panels of `layer` have been consumed.
    virtual void finished(LinearLayer /*layer*/) {}
    /// Where the gradient [1, n] of a norm's gain is to be written; empty: it is not computed. Of the norm that comes
    /// first in the block it is only there when the gradient with respect to x is computed too.
    virtual TensorView gain_gradient(BlockVector /*norm*/) { return {}; }
};

/// What products of a block's matrices have beside their weights: an update of low rank whose input is dropped out.
class ProjectionTerm {
  public:
    virtual ~ProjectionTerm() = default;
    /// y [T, out] += the term of `layer` for its input x [T, in] of the type of the pass; y has it too, or is float32.
    virtual void add(LinearLayer layer, TensorView x, TensorView y) = 0;
    /// dx [T, in] += the term's gradient with respect to x, given dy of the type of the pass; dx as y.
    virtual void add_input_gradient(LinearLayer layer, TensorView dy, TensorView dx) = 0;
};

/// Which passes a block is made for; it decides how many activations are kept.
enum class Passes { forward_only, forward_and_backward };

/// Rows of a pass that follow each other and attend to each other: a sample, or the end of one whose beginning is in
/// earlier rows of the pass.
struct RowSegment {
    std::size_t rows = 0;
    std::size_t prefix_begin = 0, prefix_rows = 0;  ///< of the beginning
};

/// Samples that a block is made for.
struct PassShape {
    std::size_t tokens = 0;  ///< of a sample, its beginning included, at most
    std::size_t rows = 0;    ///< of a pass, at most
    Passes passes = Passes::forward_and_backward;
    DType widest_weights = DType::f32;
    bool with_prefixes = false;  ///< forward passes only

    bool keeps_activations() const { return passes == Passes::forward_and_backward; }
};

/// Names the memory of what a block keeps of a pass.
constexpr const char* activations = "activations";

/// Gradients that one half hands to the other, or needs only while it runs.
struct SharedGradients {
    Tensor input;    ///< float32 [T, hidden]: of a half's input, in which products are added, or of its output's norm
    Tensor rounded;  ///< [T, hidden]: of the residual stream, in the type of 16-bit weights
};

class BlockHalf {
  public:
    /// For the passes that follow; null: products have no term. Lives as long as they do.
    void set_projection_term(ProjectionTerm* term) { term_ = term; }

  protected:
    BlockHalf(Device& device, const ModelConfig& config, const PassShape& shape, const SharedGradients& shared)
        : device_(device), shape_(shape), epsilon_(config.rms_norm_epsilon), shared_(shared) {}

    Tensor make(std::size_t rows, std::size_t columns) const {
        return device_.make_tensor(DType::f32, rows, columns, activations);
    }
    /// Of what lies between two matrix products.
    Tensor make_factor(std::size_t rows, std::size_t columns) const {
        return device_.make_tensor(shape_.widest_weights, rows, columns, activations);
    }

    void begin_pass(const BlockWeights& weights, std::size_t rows);
    /// The rows of this pass of a kept factor, in its type.
    TensorView now(const Tensor& factor) const { return factor.view().as(dtype_).row_range(0, rows_); }
    /// The same of a float32 tensor.
    TensorView floats(const Tensor& tensor) const { return tensor.view().row_range(0, rows_); }
    /// A float32 gradient in the type of the present pass.
    TensorView as_factor(TensorView gradient) const;

    /// y = x W^T + b, plus `residual` when it is not empty, plus the layer's term.
    void project(const BlockWeights& weights, LinearLayer layer, TensorView x, TensorView residual, TensorView y) const;
    /// dx = dy W, plus dx itself when `accumulate`, plus the term's.
    void project_gradient(const BlockWeights& weights, LinearLayer layer, TensorView dy, bool accumulate,
                          TensorView dx) const;
    struct LayerGradient {
        LinearLayer layer;
        TensorView dy;
    };
    /// Hands out weight gradients of layers that share the input x.
    void emit(WeightGradientSink& sink, TensorView x, std::initializer_list<LayerGradient> gradients) const;

    /// Hands out the gradient of a norm's gain, given the norm's input and its output's gradient.
    void emit_gain(WeightGradientSink& sink, BlockVector norm, TensorView x, TensorView inverse_rms,
                   TensorView dy) const;

    Device& device_;
    PassShape shape_;
    float epsilon_;
    const SharedGradients& shared_;
    ProjectionTerm* term_ = nullptr;
    DType dtype_ = DType::f32;  ///< of the weights of the present pass
    std::size_t rows_ = 0;      ///< of the present pass
};

}  // namespace espalier
