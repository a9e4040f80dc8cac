#include "src/finetune/teacher_states.h"

#include "src/blocks/block_loader.h"
#include "src/model/decoder_block.h"
#include "src/samples/hidden_states.h"
#include "src/samples/sample_reader.h"
#include "src/weights/block_reader.h"

#include <algorithm>
#include <array>
#include <numeric>

namespace espalier {

namespace {

std::vector<TrainingPass> passes_of_all(const FinetuneOptions& options) {
    std::vector<std::size_t> samples(options.samples);
    std::iota(samples.begin(), samples.end(), std::size_t{0});
    return passes_of(samples, options.sequence_length);
}

/// The samples of passes in their order.
IndexRange samples_of(std::span<const TrainingPass> passes, IndexRange range) {
    if (range.size() == 0) return {};
    return {passes[range.begin].samples.front(), passes[range.end - 1].samples.back() + 1};
}

}  // namespace

TeacherStates::TeacherStates(const TrainingContext& context, const OuterWeights& student,
                             const std::function<void(const std::string&)>& progress)
    : context_(context), student_(student), all_(passes_of_all(context.options)) {
    const std::size_t length = context.options.sequence_length, hidden = context.hidden_size();
    const IndexRange mine = part_of(all_.size(), context.ranks(), context.me());
    const std::size_t rows = samples_at_once(length) * length;
    HiddenStates x(context.device, mine, rows, hidden, context.hidden_states, "teacher's hidden states");
    {
        const OuterWeights outer(context.device, context.group, *context.teacher, OuterWeights::Parts::embedding);
        for (std::size_t pass = mine.begin; pass < mine.end; ++pass) {
            const std::vector<std::int32_t> ids = all_[pass].ids(context.ids, length);
            if (!x.on_host()) {
                outer.embed(ids, x.sample(pass).row_range(0, ids.size()));
                continue;
            }
            const Tensor of_pass = context.device.make_tensor(DType::f32, rows, hidden, samples_on_their_way);
            outer.embed(ids, of_pass.view().row_range(0, ids.size()));
            context.device.wait_for_copy(x.write_back(pass, of_pass));
        }
    }
    {
        const DType dtype = context.device.compute_dtype(context.teacher->storage().matrix_dtype);
        DecoderBlock decoder(context.device, context.teacher->config(),
                             PassShape{length, rows, Passes::forward_only, dtype});
        BlockWeights weights(context.device, context.teacher->layout(), dtype);
        const BlockLoader loader(context.device, context.teacher->layout(), context.group);
        BlockReader<BlockPart> reader([&](std::size_t block) { return loader.read(*context.teacher, block); });
        const std::size_t blocks = context.teacher->config().blocks.size();
        for (std::size_t block = 0; block < blocks; ++block) {
            progress("teacher, block " + std::to_string(block + 1) + " of " + std::to_string(blocks));
            const BlockPart part = reader.take(block);
            if (block + 1 < blocks) reader.prefetch(block + 1);
            loader.load(context.teacher->storage(), block, part, weights);
            SampleReader states(context.device, x, all_samples_of(x));
            for (std::size_t pass = mine.begin; pass < mine.end; ++pass) {
                const TensorView whole = states.next();
                const TensorView of_pass = whole.row_range(0, all_[pass].samples.size() * length);
                decoder.forward(weights, of_pass, of_pass, all_[pass].segments(length));
                x.write_back(pass, whole);
            }
        }
    }
    outer_.emplace(context.device, context.group, *context.teacher,
                   context.teacher_shares_head ? OuterWeights::Parts::norm : OuterWeights::Parts::norm_and_head);
    const DType dtype = head().head().dtype;
    states_.emplace(context.device, samples_of(all_, mine), length - 1, hidden, dtype, context.hidden_states,
                    "teacher's hidden states");
    const Tensor normed = context.device.make_tensor(dtype, rows, hidden, activations);
    const Tensor inverse_rms = context.device.make_tensor(DType::f32, 1, rows, activations);
    SampleReader states(context.device, x, all_samples_of(x));
    for (std::size_t pass = mine.begin; pass < mine.end; ++pass) {
        const std::vector<std::size_t>& samples = all_[pass].samples;
        outer_->norm(states.next().row_range(0, samples.size() * length),
                     normed.view().row_range(0, samples.size() * length), inverse_rms);
        for (std::size_t i = 0; i < samples.size(); ++i) {
            const TensorView predicting = normed.view().row_range(i * length, (i + 1) * length - 1);
            if (states_->on_host())
                context.device.wait_for_copy(states_->write_back(samples[i], predicting));
            else
                context.device.copy(predicting, states_->sample(samples[i]));
        }
    }
    context.device.synchronize();
    if (states_->on_host() && context.ranks() > 1) {
        // The most that a step can ask of this rank, whatever it draws.
        const std::size_t most = std::min(context.options.batch, states_->samples().size());
        on_their_way_ =
            context.device.make_tensor(dtype, most * (length - 1), hidden, "teacher's hidden states of a step");
    }
}

std::size_t TeacherStates::holder_of(std::size_t sample) const {
    const std::size_t pass = sample / samples_at_once(context_.options.sequence_length);
    std::size_t rank = 0;
    while (!part_of(all_.size(), context_.ranks(), rank).contains(pass)) ++rank;
    return rank;
}

void TeacherStates::collect(std::span<const TrainingPass> passes) {
    const std::size_t rows = context_.options.sequence_length - 1, hidden = context_.hidden_size();
    const std::size_t me = context_.me(), ranks = context_.ranks();
    const IndexRange mine = part_of(passes.size(), ranks, me);
    std::size_t samples = 0;
    for (std::size_t pass = mine.begin; pass < mine.end; ++pass) samples += passes[pass].samples.size();
    const DType dtype = states_->dtype();
    if (storage_.empty() || storage_.view().rows < samples * rows) {
        storage_ = {};
        storage_ = context_.device.make_tensor(dtype, samples * rows, hidden, "teacher's hidden states of a step");
    }
    collected_.clear();
    std::vector<Message> sends, receives;
    const auto bring = [&](std::size_t sample, TensorView to) {
        if (states_->on_host())
            context_.device.wait_for_copy(context_.device.start_copy(states_->sample(sample), to));
        else
            context_.device.copy(states_->sample(sample), to);
    };
    std::size_t row = 0;
    for (std::size_t rank = 0; rank < ranks; ++rank) {
        const IndexRange of_rank = part_of(passes.size(), ranks, rank);
        for (std::size_t pass = of_rank.begin; pass < of_rank.end; ++pass) {
            const std::size_t first = row;
            for (const std::size_t sample : passes[pass].samples) {
                const std::size_t holder = holder_of(sample);
                if (rank == me) {
                    const TensorView place = storage_.view().row_range(row, row + rows);
                    row += rows;
                    if (holder == me)
                        bring(sample, place);
                    else
                        receives.push_back({static_cast<int>(holder), place.data, place.bytes()});
                } else if (holder == me) {
                    TensorView values = states_->sample(sample);
                    if (states_->on_host()) {
                        values = on_their_way_.view().row_range(sends.size() * rows, (sends.size() + 1) * rows);
                        bring(sample, values);
                    }
                    sends.push_back({static_cast<int>(rank), values.data, values.bytes()});
                }
            }
            if (rank == me) collected_.push_back(storage_.view().row_range(first, row));
        }
    }
    context_.group.start_exchange(sends, receives)->finish();
}

}  // namespace espalier
