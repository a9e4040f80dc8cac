#include "src/finetune/training_step.h"

#include "src/samples/sample_reader.h"

#include <algorithm>
#include <cmath>

namespace espalier {

namespace {

constexpr std::size_t sums_of_blocks = 2;

}  // namespace

/// The passes of all ranks, and what this rank computes of its own.
struct TrainingStep::Batch {
    std::vector<TrainingPass> passes;
    IndexRange mine;
    std::vector<std::size_t> leaf_offsets;      ///< passes of each rank
    std::vector<std::vector<LossSums>> losses;  ///< of this rank's passes, by prediction
    TrainedUpdate update;                       ///< of a step

    Batch(std::span<const std::size_t> samples, const TrainedUpdate& update, const TrainingContext& context)
        : passes(passes_of(samples, context.options.sequence_length)),
          mine(part_of(passes.size(), context.ranks(), context.me())),
          update(update) {
        for (std::size_t rank = 0; rank <= context.ranks(); ++rank) {
            leaf_offsets.push_back(rank * passes.size() / context.ranks());
        }
    }
};

TrainingStep::TrainingStep(const TrainingContext& context, OuterWeights& outer, StudentWeights& student,
                           TrainedValues& values, TeacherStates* teacher)
    : context_(context),
      outer_(outer),
      student_(student),
      values_(values),
      teacher_(teacher),
      rows_(std::min(samples_at_once(context.options.sequence_length), context.options.samples) *
            context.options.sequence_length),
      decoder_(
          context.device, context.student.config(),
          PassShape{context.options.sequence_length, rows_, Passes::forward_and_backward, context.compute_dtype()}),
      head_(context.device, outer, teacher == nullptr ? nullptr : &teacher->head(), context.options.loss_weights(),
            rows_ / context.options.sequence_length * (context.options.sequence_length - 1)),
      dropout_(context, values, student, rows_),
      gradients_(context, values, student, dropout_),
      output_(context.device.make_tensor(DType::f32, rows_, context.hidden_size(), activations)) {
    const std::size_t at_once = samples_at_once(context.options.sequence_length);
    const std::size_t passes = (context.options.batch + at_once - 1) / at_once;
    // The most that a rank has of any batch: smaller ones may be cut differently.
    const std::size_t mine = (passes + context.ranks() - 1) / context.ranks();
    states_.emplace(context.device, IndexRange{0, (context.blocks() + 1) * mine}, rows_, context.hidden_size(),
                    DType::f32, context.hidden_states, "hidden states");
    dstates_ =
        context.device.make_tensor(DType::f32, mine * rows_, context.hidden_size(), "gradients of hidden states");
}

std::vector<OrderedSum>& TrainingStep::sums_for(const std::vector<std::size_t>& leaf_offsets) {
    std::vector<OrderedSum>& sums = sums_[leaf_offsets.back()];
    if (!sums.empty()) return sums;
    for (std::size_t i = 0; i < sums_of_blocks + 1; ++i) {
        const TrainedLayout& layout = values_.layout(i < sums_of_blocks ? 0 : values_.units() - 1);
        sums.emplace_back(context_.device, context_.group, layout.size(), leaf_offsets, "sums of gradients");
    }
    return sums;
}

// The way back begins with the last block, which is there, and goes on with the one before it.
std::optional<std::size_t> TrainingStep::block_after(std::size_t block, bool turns) const {
    if (block + 1 < context_.blocks()) return block + 1;
    return turns && block > 0 ? std::optional<std::size_t>(block - 1) : std::nullopt;
}

void TrainingStep::begin_pass(const Batch& batch, std::size_t pass, const BlockWeights& weights, Way way) {
    const bool drops = way == Way::step && context_.options.dropout > 0;
    decoder_.set_projection_term(drops ? &dropout_ : nullptr);
    if (!drops) return;
    const std::size_t first = (batch.mine.begin + pass) * samples_at_once(context_.options.sequence_length);
    dropout_.begin(weights,
                   ((batch.update.number - 1) * context_.options.batch + first) * context_.options.sequence_length);
}

// States of pass p before block b are sample b * passes + p of the store; when they are not kept, those of block 0.
void TrainingStep::run_forward(Batch& batch, Way way) {
    const bool keeps_states = way == Way::step;
    const std::size_t length = context_.options.sequence_length, passes = batch.mine.size();
    const auto place = [&](std::size_t block, std::size_t pass) { return (keeps_states ? block * passes : 0) + pass; };
    // Where states lie on the device they are computed in their place.
    const auto place_of = [&](std::size_t index) {
        return states_->on_host() ? output_.view() : states_->sample(index);
    };
    const auto write = [&](std::size_t index) {
        if (states_->on_host()) context_.device.wait_for_copy(states_->write_back(index, output_));
    };
    for (std::size_t p = 0; p < passes; ++p) {
        const std::vector<std::int32_t> ids = batch.passes[batch.mine.begin + p].ids(context_.ids, length);
        outer_.embed(ids, place_of(place(0, p)).row_range(0, ids.size()));
        write(place(0, p));
    }
    for (std::size_t block = 0; block < context_.blocks(); ++block) {
        const BlockWeights& weights = student_.take(block, block_after(block, keeps_states));
        std::vector<std::size_t> order;
        for (std::size_t p = 0; p < passes; ++p) order.push_back(place(block, p));
        SampleReader states(context_.device, *states_, order);
        for (std::size_t p = 0; p < passes; ++p) {
            const TrainingPass& pass = batch.passes[batch.mine.begin + p];
            const std::size_t rows = pass.samples.size() * length;
            const TensorView x = states.next().row_range(0, rows), y = place_of(place(block + 1, p)).row_range(0, rows);
            begin_pass(batch, p, weights, way);
            decoder_.forward(weights, x, y, pass.segments(length));
            write(place(block + 1, p));
        }
    }
}

void TrainingStep::run_head(Batch& batch, bool with_gradient) {
    const std::size_t length = context_.options.sequence_length, passes = batch.mine.size();
    if (teacher_ != nullptr) teacher_->collect(batch.passes);
    const std::size_t end = values_.units() - 1;
    const bool trains_norm = with_gradient && values_.layout(end).size() > 0;
    OrderedSum* const sum = trains_norm ? &sums_for(batch.leaf_offsets)[sums_of_blocks] : nullptr;
    std::vector<std::size_t> order;
    for (std::size_t p = 0; p < passes; ++p) order.push_back((with_gradient ? context_.blocks() * passes : 0) + p);
    SampleReader states(context_.device, *states_, order);
    for (std::size_t p = 0; p < passes; ++p) {
        const TrainingPass& pass = batch.passes[batch.mine.begin + p];
        const std::size_t rows = pass.samples.size() * length;
        const Predictions predictions = Predictions::of(pass.ids(context_.ids, length), length);
        const TensorView x = states.next().row_range(0, rows);
        const TensorView teacher = teacher_ == nullptr ? TensorView{} : teacher_->of(p);
        if (with_gradient) {
            head_.gradient(predictions, x, teacher, dstates_.view().row_range(p * rows_, p * rows_ + rows),
                           trains_norm ? sum->begin_undefined_leaf() : TensorView{});
            if (trains_norm) sum->end_leaf();
        } else {
            head_.measure(predictions, x, teacher);
        }
        batch.losses.push_back(head_.read());
    }
    if (!trains_norm) return;
    sum->start_reduce(values_.parts(end));
    sum->finish_reduce(values_.gradient_part(end));
    follow(end, batch);
}

void TrainingStep::follow(std::size_t unit, const Batch& batch) {
    values_.take_gradient(unit);
    if (!context_.options.bounds_gradients()) values_.step(unit, batch.update);
}

void TrainingStep::run_backward(Batch& batch) {
    const std::size_t length = context_.options.sequence_length, passes = batch.mine.size();
    std::vector<OrderedSum>& sums = sums_for(batch.leaf_offsets);
    std::optional<std::size_t> on_its_way;
    const auto finish = [&] {
        if (!on_its_way) return;
        sums[*on_its_way % sums_of_blocks].finish_reduce(values_.gradient_part(*on_its_way));
        follow(*on_its_way, batch);
        on_its_way.reset();
    };
    for (std::size_t left = context_.blocks(); left > 0; --left) {
        const std::size_t block = left - 1;
        const BlockWeights& weights =
            student_.take(block, block > 0 ? std::optional<std::size_t>(block - 1) : std::nullopt);
        OrderedSum& sum = sums[block % sums_of_blocks];
        std::vector<std::size_t> order;
        for (std::size_t p = 0; p < passes; ++p) order.push_back(block * passes + p);
        SampleReader states(context_.device, *states_, order);
        for (std::size_t p = 0; p < passes; ++p) {
            const TrainingPass& pass = batch.passes[batch.mine.begin + p];
            const std::size_t rows = pass.samples.size() * length;
            const TensorView x = states.next().row_range(0, rows), y = output_.view().row_range(0, rows);
            begin_pass(batch, p, weights, Way::step);
            decoder_.recompute(weights, x, y, pass.segments(length));
            gradients_.begin(weights, sum.begin_undefined_leaf());
            const TensorView dy = dstates_.view().row_range(p * rows_, p * rows_ + rows);
            // What enters the first block is not trained; only the gain of its first norm asks for its gradient.
            if (block > 0 || context_.options.train_norms)
                decoder_.backward_to_input(weights, dy, x, gradients_);
            else
                decoder_.backward(weights, dy, gradients_);
            sum.end_leaf();
        }
        finish();
        sum.start_reduce(values_.parts(block));
        on_its_way = block;
    }
    finish();
}

MeanLoss TrainingStep::mean_of(const Batch& batch) const {
    // By sample, in their order: the same additions on any number of ranks.
    const std::size_t predictions = context_.options.sequence_length - 1;
    std::vector<std::size_t> offsets = {0};
    for (std::size_t rank = 0; rank < context_.ranks(); ++rank) {
        std::size_t samples = 0;
        for (std::size_t p = batch.leaf_offsets[rank]; p < batch.leaf_offsets[rank + 1]; ++p)
            samples += batch.passes[p].samples.size();
        offsets.push_back(offsets.back() + samples);
    }
    std::vector<LossSums> of_samples(offsets.back());
    std::size_t sample = offsets[context_.me()];
    for (const std::vector<LossSums>& of_pass : batch.losses) {
        for (std::size_t i = 0; i < of_pass.size(); ++i) {
            LossSums& sum = of_samples[sample + i / predictions];
            sum.language_model += of_pass[i].language_model;
            sum.divergence += of_pass[i].divergence;
        }
        sample += of_pass.size() / predictions;
    }
    context_.control.all_gather(std::span(of_samples), offsets);
    MeanLoss mean;
    for (const LossSums& of_sample : of_samples) {
        mean.language_model += of_sample.language_model;
        mean.divergence += of_sample.divergence;
    }
    const auto count = static_cast<double>(of_samples.size() * predictions);
    mean.language_model /= count;
    mean.divergence /= count;
    return mean;
}

TrainingStep::Result TrainingStep::take(std::span<const std::size_t> samples, std::size_t number) {
    const FinetuneOptions& options = context_.options;
    require(samples.size() <= options.batch && number > 0, "a batch that was said, and a step from 1 on");
    // Gradients are of the sum over predictions, which 16-bit types hold better than those of its mean.
    const double mean = 1 / static_cast<double>(samples.size() * (options.sequence_length - 1));
    Batch batch(samples, {options.learning_rate_of(number - 1), mean, number}, context_);
    run_forward(batch, Way::step);
    run_head(batch, true);
    run_backward(batch);
    Result result;
    result.loss = mean_of(batch);
    result.gradient_norm = mean * std::sqrt(values_.gradient_square_sum());
    if (options.bounds_gradients()) {
        TrainedUpdate update = batch.update;
        if (result.gradient_norm > options.gradient_norm)
            update.gradient_scale *= options.gradient_norm / result.gradient_norm;
        for (std::size_t unit = 0; unit < values_.units(); ++unit) values_.step(unit, update);
    }
    values_.gather_end(outer_.final_norm());
    student_.refresh();
    return result;
}

MeanLoss TrainingStep::measure(std::span<const std::size_t> samples) {
    MeanLoss mean;
    for (std::size_t first = 0; first < samples.size(); first += context_.options.batch) {
        const auto some = samples.subspan(first, std::min(context_.options.batch, samples.size() - first));
        Batch batch(some, {}, context_);
        run_forward(batch, Way::look);
        run_head(batch, false);
        const MeanLoss of_some = mean_of(batch);
        const double share = static_cast<double>(some.size()) / static_cast<double>(samples.size());
        mean.language_model += share * of_some.language_model;
        mean.divergence += share * of_some.divergence;
    }
    return mean;
}

}  // namespace espalier
