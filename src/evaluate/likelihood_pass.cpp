#include "src/evaluate/likelihood_pass.h"

#include "src/blocks/block_loader.h"
#include "src/evaluate/cross_entropies.h"
#include "src/model/decoder_block.h"
#include "src/samples/embedded_samples.h"
#include "src/samples/sample_reader.h"
#include "src/weights/block_reader.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <numeric>

namespace espalier {

namespace {

std::span<const PackedSequences> part(std::span<const PackedSequences> passes, IndexRange range) {
    return passes.subspan(range.begin, range.size());
}

}  // namespace

LikelihoodPass::LikelihoodPass(Device& device, Communicator& group, const ModelSource& source,
                               std::span<const PackedSequences> passes, StoragePlace place)
    : device_(device),
      group_(group),
      source_(source),
      shape_(shape_of(passes)),
      passes_(part(passes, passes_of_rank(passes.size(), group))),
      x_(device, {0, passes_.size()}, shape_.rows, source.config().hidden_size, place) {
    std::vector<std::int32_t> ids(passes_.size() * shape_.rows);
    for (std::size_t pass = 0; pass < passes_.size(); ++pass) {
        std::ranges::copy(passes_[pass].ids, ids.begin() + static_cast<std::ptrdiff_t>(pass * shape_.rows));
    }
    embed_samples(device, source, ids, x_);
}

void LikelihoodPass::run_blocks(const SayProgress& progress) {
    const DType dtype = device_.compute_dtype(source_.storage().matrix_dtype);
    const PassShape shape = {.tokens = shape_.tokens,
                             .rows = shape_.rows,
                             .passes = Passes::forward_only,
                             .widest_weights = dtype,
                             .with_prefixes = shape_.with_prefixes};
    DecoderBlock decoder(device_, source_.config(), shape);
    BlockWeights weights(device_, source_.layout(), dtype);
    const BlockLoader loader(device_, source_.layout(), group_);
    BlockReader<BlockPart> reader([&](std::size_t block) { return loader.read(source_, block); });
    const std::size_t blocks = source_.config().blocks.size();
    for (std::size_t block = 0; block < blocks; ++block) {
        progress("block " + std::to_string(block + 1) + " of " + std::to_string(blocks));
        const BlockPart of_block = reader.take(block);
        if (block + 1 < blocks) reader.prefetch(block + 1);
        loader.load(source_.storage(), block, of_block, weights);
        SampleReader states(device_, x_, all_samples_of(x_));
        for (std::size_t pass = 0; pass < passes_.size(); ++pass) {
            const TensorView whole = states.next(), x = whole.row_range(0, passes_[pass].ids.size());
            decoder.forward(weights, x, x, passes_[pass].segments);
            x_.write_back(pass, whole);
        }
    }
}

std::vector<Likelihood> LikelihoodPass::run_head(const SayProgress& progress) {
    std::vector<std::size_t> begin = {0};  // of each pass's predictions
    for (const PackedSequences& pass : passes_) begin.push_back(begin.back() + pass.rows.size());
    CrossEntropies losses(device_, begin.back());
    const Tensor predicting =
        device_.make_tensor(DType::f32, shape_.predictions, source_.config().hidden_size, activations);
    std::vector<std::uint32_t> in_order(shape_.predictions);
    std::iota(in_order.begin(), in_order.end(), 0U);
    const auto begin_part = [&] {
        const auto reader = std::make_shared<SampleReader>(device_, x_, all_samples_of(x_));
        return [&, reader](std::size_t pass) {
            const std::vector<std::uint32_t>& rows = passes_[pass].rows;
            const TensorView states = predicting.view().row_range(0, rows.size());
            device_.scatter_rows(reader->next(), rows, std::span(in_order).first(rows.size()), states);
            return states;
        };
    };
    const auto add = [&](std::size_t pass, std::size_t first_token, TensorView logits) {
        losses.add(begin[pass], logits, first_token, passes_[pass].targets);
    };
    ModelHead(device_, group_, source_, shape_.predictions).run(x_.samples(), begin_part, add, progress);
    const std::vector<TokenLoss> of_tokens = losses.read();
    std::vector<Likelihood> likelihoods;
    std::size_t token = 0;
    for (const PackedSequences& pass : passes_) {
        for (const std::size_t predictions : pass.continuations) {
            Likelihood& of_continuation = likelihoods.emplace_back();
            double loss = 0;
            for (const std::size_t end = token + predictions; token < end; ++token) {
                loss += of_tokens[token].loss;
                of_continuation.greedy = of_continuation.greedy && of_tokens[token].most_likely;
            }
            of_continuation.logarithm = -loss;
        }
    }
    return likelihoods;
}

}  // namespace espalier
