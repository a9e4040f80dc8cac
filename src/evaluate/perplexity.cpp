#include "src/evaluate/perplexity.h"

#include "mpi/tensor_collectives.h"
#include "mpi/tensor_communicator.h"
#include "src/base/error.h"
#include "src/blocks/block_loader.h"
#include "src/blocks/group_context.h"
#include "src/model/decoder_block.h"
#include "src/samples/hidden_states.h"
#include "src/weights/block_reader.h"
#include "src/weights/embedding.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace espalier {

namespace {

constexpr std::size_t vocabulary_panel = 4096;
/// Rows of a product, from which on more make it no faster.
constexpr std::size_t rows_at_once = 512;

/// The windows of all batches that `windows` have a part in; none for none.
IndexRange whole_batches(IndexRange windows, std::size_t batch) {
    if (windows.size() == 0) return windows;
    return {windows.begin / batch * batch, (windows.end + batch - 1) / batch * batch};
}

/// One rank's share of the windows on their way through the model, several in one product where they are short. They
/// are cut into batches by their number among all windows, and a batch that is not whole is filled with zeros: so a
/// window always has the same place in a product of the same size, and its digits do not depend on the ranks.
class PerplexityPass {
  public:
    PerplexityPass(const GroupContext& context, const ModelSource& source, std::span<const std::int32_t> tokens)
        : c_(context),
          source_(source),
          tokens_(tokens),
          windows_(context.my_samples()),
          batch_(std::clamp<std::size_t>(rows_at_once / context.tokens, 1, tokens.size() / context.tokens)),
          padded_(whole_batches(windows_, batch_)),
          x_(context.device, padded_, context.tokens, context.config.hidden_size) {
        c_.device.fill_zero(x_.all());
        const std::size_t first_row = (windows_.begin - padded_.begin) * c_.tokens;
        embed_tokens(c_.device, source_, tokens_.subspan(windows_.begin * c_.tokens, windows_.size() * c_.tokens),
                     x_.all().row_range(first_row, first_row + windows_.size() * c_.tokens));
    }

    void run_blocks(const std::function<void(const std::string&)>& progress) {
        const DType dtype = c_.device.compute_dtype(source_.storage().matrix_dtype);
        DecoderBlock decoder(c_.device, c_.config, c_.tokens, Passes::forward_only, dtype, batch_);
        BlockWeights weights(c_.device, c_.layout, dtype);
        const BlockLoader loader(c_.device, c_.layout, c_.group);
        BlockReader<BlockPart> reader([&](std::size_t block) { return loader.read(source_, block); });
        for (std::size_t block = 0; block < c_.config.blocks; ++block) {
            progress("block " + std::to_string(block + 1) + " of " + std::to_string(c_.config.blocks));
            const BlockPart part = reader.take(block);
            if (block + 1 < c_.config.blocks) reader.prefetch(block + 1);
            loader.load(source_.storage(), block, part, weights);
            for (std::size_t first = padded_.begin; first < padded_.end; first += batch_) {
                decoder.forward(weights, rows_of_batch(x_.all(), first), rows_of_batch(x_.all(), first), nullptr);
            }
        }
    }

    /// Mean cross-entropy of each of this rank's windows.
    std::vector<double> run_head(const std::function<void(const std::string&)>& progress) {
        const DType dtype = c_.device.compute_dtype(source_.outer_dtype(OuterTensor::head));
        const Tensor normed = normalise(dtype);
        const std::size_t predictions = c_.tokens - 1, hidden = c_.config.hidden_size;
        const auto make_state = [&] { return c_.device.make_tensor(DType::f32, windows_.size(), predictions); };
        const Tensor running_max = make_state(), running_sum = make_state(), target_logit = make_state();
        c_.device.start_cross_entropy(running_max, running_sum, target_logit);
        const std::size_t vocabulary = source_.outer_rows(OuterTensor::head);
        for (std::size_t first = 0; first < vocabulary; first += vocabulary_panel) {
            progress("vocabulary " + std::to_string(first) + " of " + std::to_string(vocabulary));
            const std::size_t rows = std::min(vocabulary_panel, vocabulary - first);
            const Tensor panel = load_rows(OuterTensor::head, first, rows, dtype, rows, hidden);
            const Tensor logits = c_.device.make_tensor(DType::f32, batch_ * c_.tokens, rows);
            for (std::size_t batch = padded_.begin; batch < padded_.end; batch += batch_) {
                c_.device.linear(rows_of_batch(normed, batch), panel, {}, logits);
                for (std::size_t w = std::max(batch, windows_.begin); w < std::min(batch + batch_, windows_.end); ++w) {
                    const std::size_t i = w - windows_.begin, row = (w - batch) * c_.tokens;
                    c_.device.cross_entropy_panel(
                        logits.view().row_range(row, row + predictions), first,
                        tokens_.subspan(w * c_.tokens + 1, predictions), running_max.view().row_range(i, i + 1),
                        running_sum.view().row_range(i, i + 1), target_logit.view().row_range(i, i + 1));
                }
            }
        }
        return window_losses(running_max, running_sum, target_logit);
    }

  private:
    /// The rows of the windows [first, first + batch_) in a tensor that holds those of all padded windows.
    TensorView rows_of_batch(TensorView all, std::size_t first) const {
        const std::size_t row = (first - padded_.begin) * c_.tokens;
        return all.row_range(row, row + batch_ * c_.tokens);
    }

    /// Rows of an outer tensor in a type that can hold them, on every rank's device; rank 0 reads.
    Tensor load_rows(OuterTensor tensor, std::size_t first, std::size_t rows, DType dtype, std::size_t shape_rows,
                     std::size_t shape_columns) {
        Tensor stored = c_.device.make_tensor(source_.outer_dtype(tensor), shape_rows, shape_columns);
        if (c_.group.rank() == 0) {
            std::vector<std::byte> raw(stored.view().bytes());
            source_.read_outer_rows(tensor, first, rows, raw);
            c_.device.copy_from_host(raw.data(), stored);
        }
        broadcast(c_.group, stored, 0);
        if (stored.view().dtype == dtype) return stored;
        Tensor result = c_.device.make_tensor(dtype, shape_rows, shape_columns);
        c_.device.convert(stored, result);
        return result;
    }

    /// The hidden states through the final norm, in the type of the head.
    Tensor normalise(DType dtype) {
        const std::size_t hidden = c_.config.hidden_size;
        const Tensor weight = load_rows(OuterTensor::final_norm, 0, hidden, DType::f32, 1, hidden);
        const Tensor inverse_rms = c_.device.make_tensor(DType::f32, 1, batch_ * c_.tokens);
        Tensor normed = c_.device.make_tensor(dtype, x_.all().rows, hidden);
        for (std::size_t batch = padded_.begin; batch < padded_.end; batch += batch_) {
            c_.device.rms_norm(rows_of_batch(x_.all(), batch), weight, c_.config.rms_norm_epsilon,
                               rows_of_batch(normed, batch), inverse_rms);
        }
        return normed;
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
    std::size_t batch_;
    IndexRange padded_;  ///< windows_ and those that make its batches whole
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
    const TensorCommunicator tensors(session.world(), device);
    const GroupContext context{device,          tensors.get(),   session.world(), topology, topology.groups()[0],
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
