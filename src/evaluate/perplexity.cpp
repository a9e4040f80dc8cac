#include "src/evaluate/perplexity.h"

#include "src/base/error.h"
#include "src/model/decoder_block.h"
#include "src/prune/group_context.h"
#include "src/prune/hidden_states.h"
#include "src/weights/block_reader.h"
#include "src/weights/embedding.h"

#include <cmath>
#include <vector>

namespace espalier {

namespace {

constexpr std::size_t vocabulary_panel = 4096;

/// One rank's share of the windows on their way through the model.
class PerplexityPass {
  public:
    PerplexityPass(const GroupContext& context, const ModelSource& source, std::span<const std::int32_t> tokens)
        : c_(context),
          source_(source),
          tokens_(tokens),
          windows_(context.my_samples()),
          x_(context.device, windows_, context.tokens, context.config.hidden_size) {
        embed_tokens(c_.device, source_, tokens_.subspan(windows_.begin * c_.tokens, windows_.size() * c_.tokens),
                     x_.all());
    }

    void run_blocks(const std::function<void(const std::string&)>& progress) {
        DecoderBlock decoder(c_.device, c_.config, c_.tokens, Passes::forward_only);
        BlockWeights weights(c_.device, c_.layout, c_.device.compute_dtype(source_.storage().matrix_dtype));
        BlockReader reader([this](std::size_t block) {
            std::vector<std::byte> raw(source_.storage().total_bytes(c_.layout));
            source_.read_block(block, raw);
            return raw;
        });
        for (std::size_t block = 0; block < c_.config.blocks; ++block) {
            progress("block " + std::to_string(block + 1) + " of " + std::to_string(c_.config.blocks));
            const int owner = c_.block_group.owner_of(block);
            std::vector<std::byte> raw;
            if (c_.group.rank() == owner) {
                raw = reader.take(block);
                if (block + c_.ranks() < c_.config.blocks) reader.prefetch(block + c_.ranks());
            }
            raw.resize(source_.storage().total_bytes(c_.layout));
            c_.group.broadcast(std::span<std::byte>(raw), owner);
            load_block(c_.device, c_.layout, source_.storage(), raw, block, weights);
            for (std::size_t w = windows_.begin; w < windows_.end; ++w) {
                decoder.forward(weights, x_.sample(w), x_.sample(w), nullptr);
            }
        }
    }

    /// Mean cross-entropy of each of this rank's windows.
    std::vector<double> run_head(const std::function<void(const std::string&)>& progress) {
        normalise();
        const std::size_t predictions = c_.tokens - 1, hidden = c_.config.hidden_size;
        const auto make_state = [&] { return c_.device.make_tensor(DType::f32, windows_.size(), predictions); };
        const Tensor running_max = make_state(), running_sum = make_state(), target_logit = make_state();
        c_.device.start_cross_entropy(running_max, running_sum, target_logit);
        const std::size_t vocabulary = source_.outer_rows(OuterTensor::head);
        for (std::size_t first = 0; first < vocabulary; first += vocabulary_panel) {
            progress("vocabulary " + std::to_string(first) + " of " + std::to_string(vocabulary));
            const std::size_t rows = std::min(vocabulary_panel, vocabulary - first);
            const Tensor panel = load_rows(OuterTensor::head, first, rows, rows, hidden);
            const Tensor logits = c_.device.make_tensor(DType::f32, predictions, rows);
            for (std::size_t w = windows_.begin; w < windows_.end; ++w) {
                c_.device.linear(x_.sample(w).row_range(0, predictions), panel, false, logits);
                const std::size_t i = w - windows_.begin;
                c_.device.cross_entropy_panel(logits, first, tokens_.subspan(w * c_.tokens + 1, predictions),
                                              running_max.view().row_range(i, i + 1),
                                              running_sum.view().row_range(i, i + 1),
                                              target_logit.view().row_range(i, i + 1));
            }
        }
        return window_losses(running_max, running_sum, target_logit);
    }

  private:
    /// Rows of an outer tensor as float32 on every rank's device; rank 0 reads.
    Tensor load_rows(OuterTensor tensor, std::size_t first, std::size_t rows, std::size_t shape_rows,
                     std::size_t shape_columns) {
        const DType dtype = source_.outer_dtype(tensor);
        std::vector<std::byte> raw(rows * source_.outer_columns(tensor) * bytes_of(dtype));
        if (c_.group.rank() == 0) source_.read_outer_rows(tensor, first, rows, raw);
        c_.group.broadcast(std::span<std::byte>(raw), 0);
        std::vector<float> values(shape_rows * shape_columns);
        widen_to_float(dtype, raw.data(), values.size(), values.data());
        Tensor result = c_.device.make_tensor(DType::f32, shape_rows, shape_columns);
        c_.device.copy_from_host(values.data(), result);
        return result;
    }

    void normalise() {
        const std::size_t hidden = c_.config.hidden_size;
        const Tensor weight = load_rows(OuterTensor::final_norm, 0, hidden, 1, hidden);
        const Tensor inverse_rms = c_.device.make_tensor(DType::f32, 1, c_.tokens);
        for (std::size_t w = windows_.begin; w < windows_.end; ++w) {
            c_.device.rms_norm(x_.sample(w), weight, c_.config.rms_norm_epsilon, x_.sample(w), inverse_rms);
        }
    }

    std::vector<double> window_losses(TensorView running_max, TensorView running_sum, TensorView target_logit) {
        const std::size_t predictions = c_.tokens - 1;
        std::vector<float> largest(running_max.size()), sum(running_sum.size()), target(target_logit.size());
        c_.device.copy_to_host(running_max, largest.data());
        c_.device.copy_to_host(running_sum, sum.data());
        c_.device.copy_to_host(target_logit, target.data());
        std::vector<double> losses;
        for (std::size_t w = 0; w < windows_.size(); ++w) {
            double loss = 0;
            for (std::size_t i = w * predictions; i < (w + 1) * predictions; ++i) {
                loss += std::log(static_cast<double>(sum[i])) + static_cast<double>(largest[i]) -
                        static_cast<double>(target[i]);
            }
            losses.push_back(loss / static_cast<double>(predictions));
        }
        return losses;
    }

    const GroupContext& c_;
    const ModelSource& source_;
    std::span<const std::int32_t> tokens_;
    IndexRange windows_;
    HiddenStates x_;
};

}  // namespace

Perplexity measure_perplexity(Session& session, Device& device, const ModelSource& source,
                              std::span<const std::int32_t> tokens, std::size_t sequence_length,
                              const std::function<void(const std::string&)>& progress) {
    if (sequence_length < 2) throw InputError("--sequence-length must be at least 2 to predict a next token");
    const std::size_t windows = tokens.size() / sequence_length;
    if (windows == 0) {
        throw InputError("the token file holds " + std::to_string(tokens.size()) +
                         " tokens, fewer than one window of " + std::to_string(sequence_length));
    }
    source.config().check_sequence_length(sequence_length);
    const Topology topology(static_cast<std::size_t>(session.size()), source.config().blocks, 1, windows, windows);
    const GroupContext context{device,          session.world(), topology,       topology.groups()[0],
                               source.config(), source.layout(), sequence_length};
    PerplexityPass pass(context, source, tokens);
    pass.run_blocks(progress);
    const std::vector<double> losses = pass.run_head(progress);
    std::vector<std::size_t> all(windows);
    for (std::size_t w = 0; w < windows; ++w) all[w] = w;
    Perplexity result;
    result.windows = windows;
    result.loss = sum_in_sample_order(context, all, losses) / static_cast<double>(windows);
    result.perplexity = std::exp(result.loss);
    if (!std::isfinite(result.loss)) throw NonFiniteError("the model's logits are not finite on these tokens");
    return result;
}

}  // namespace espalier
