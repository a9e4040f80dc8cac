#include "src/evaluate/generation.h"

#include "kernels/device_numbers.h"
#include "src/base/error.h"
#include "src/base/index_range.h"
#include "src/base/philox.h"
#include "src/base/units.h"
#include "src/blocks/block_loader.h"
#include "src/blocks/outer_weights.h"
#include "src/model/decoder_block.h"
#include "src/weights/block_reader.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <string>

namespace espalier {

namespace {

/// Where a rank stands: ranks of one pipeline follow each other.
struct Stage {
    std::size_t stages = 1, stage = 0, pipelines = 1, pipeline = 0;

    Stage(const Communicator& ranks, std::size_t stages)
        : stages(stages),
          stage(static_cast<std::size_t>(ranks.rank()) % stages),
          pipelines(static_cast<std::size_t>(ranks.size()) / stages),
          pipeline(static_cast<std::size_t>(ranks.rank()) / stages) {}
    bool is_first() const { return stage == 0; }
    bool is_last() const { return stage + 1 == stages; }
    int rank_of(std::size_t of_stage) const { return static_cast<int>(pipeline * stages + of_stage); }
};

std::size_t batches_of(const GenerationOptions& options) {
    return (options.samples + options.batch - 1) / options.batch;
}

/// Batches that are in the pipeline together.
std::size_t batches_in_flight(const GenerationOptions& options, std::size_t pipelines, std::size_t stages) {
    return std::min(stages, (batches_of(options) + pipelines - 1) / pipelines);
}

/// The blocks of this rank's stage, on its device.
std::vector<std::unique_ptr<BlockWeights>> load_blocks(const GenerationContext& context, IndexRange blocks,
                                                       Communicator& readers, DType dtype) {
    const ModelSource& source = context.source;
    const BlockLoader loader(context.device, source.layout(), readers);
    BlockReader<BlockPart> reader([&](std::size_t block) { return loader.read(source, block); });
    std::vector<std::unique_ptr<BlockWeights>> loaded;
    for (std::size_t block = blocks.begin; block < blocks.end; ++block) {
        context.progress("reading block " + std::to_string(block + 1));
        const BlockPart part = reader.take(block);
        if (block + 1 < blocks.end) reader.prefetch(block + 1);
        loaded.push_back(std::make_unique<BlockWeights>(context.device, source.layout(), dtype));
        loaded.back()->block = block;
        loader.load(source.storage(), block, part, *loaded.back());
    }
    return loaded;
}

OuterWeights::Parts parts_of(const Stage& stage) {
    if (stage.stages == 1) return OuterWeights::Parts::all;
    return stage.is_first() ? OuterWeights::Parts::embedding : OuterWeights::Parts::norm_and_head;
}

class Generator {
  public:
    Generator(const GenerationContext& context, const GenerationOptions& options, const Stage& stage);

    /// All samples of this rank's pipeline, complete on its last stage: [samples, total_length].
    std::vector<std::int32_t> run();
    IndexRange samples() const {
        return {first_of(batches_.begin), std::min(options_.samples, first_of(batches_.end))};
    }

  private:
    /// A batch on its way through the model.
    struct Batch {
        IndexRange samples;
        const KeyValueCache* cache;
        std::vector<std::int32_t> ids;  ///< of one position, to or from another rank
        std::unique_ptr<Exchange> under_way = nullptr;
    };
    std::size_t first_of(std::size_t batch) const { return batch * options_.batch; }
    std::int32_t& token(std::size_t sample, std::size_t position) {
        return tokens_[(sample - samples().begin) * options_.total_length() + position];
    }
    void take_batch(Batch& batch, std::size_t position);
    void embed(Batch& batch, std::size_t position, TensorView x);
    void draw(Batch& batch, std::size_t position, TensorView x);
    void exchange_states(TensorView x, bool sends) const;

    const GenerationContext& context_;
    const GenerationOptions& options_;
    Stage stage_;
    IndexRange batches_;
    DType dtype_;
    std::unique_ptr<Communicator> alone_ = make_single_communicator();
    std::vector<std::unique_ptr<BlockWeights>> blocks_;
    std::optional<OuterWeights> outer_;
    DecoderBlock decoder_;
    std::vector<KeyValueCache> caches_;
    Tensor states_, normed_, inverse_rms_, logits_;
    std::vector<std::int32_t> tokens_;
};

Generator::Generator(const GenerationContext& context, const GenerationOptions& options, const Stage& stage)
    : context_(context),
      options_(options),
      stage_(stage),
      batches_(part_of(batches_of(options), stage.pipelines, stage.pipeline)),
      dtype_(context.device.compute_dtype(context.source.storage().matrix_dtype)),
      decoder_(context.device, context.source.config(),
               PassShape{std::max(options.sequence_length, options.total_length() - 1), options.batch,
                         Passes::forward_only, dtype_}) {
    Device& device = context.device;
    const ModelConfig& config = context.source.config();
    Communicator& readers = stage.stages == 1 ? context.group : *alone_;
    const IndexRange mine = part_of(config.blocks.size(), stage.stages, stage.stage);
    blocks_ = load_blocks(context, mine, readers, dtype_);
    if (stage.is_first() || stage.is_last()) outer_.emplace(device, readers, context.source, parts_of(stage));
    for (std::size_t i = 0; i < batches_in_flight(options, stage.pipelines, stage.stages); ++i)
        caches_.emplace_back(device, config, mine, options.batch, options.total_length() - 1, dtype_);
    states_ = device.make_tensor(DType::f32, options.batch, config.hidden_size, activations);
    if (!stage.is_last()) return;
    const DType of_head = outer_->head().dtype;
    normed_ = device.make_tensor(of_head, options.batch, config.hidden_size, activations);
    inverse_rms_ = device.make_tensor(DType::f32, 1, options.batch, activations);
    logits_ = device.make_tensor(DType::f32, options.batch, config.vocabulary, "logits");
}

std::vector<std::int32_t> Generator::run() {
    const std::size_t total = options_.total_length();
    tokens_.assign(samples().size() * total, 0);
    for (std::size_t sample = samples().begin; sample < samples().end; ++sample) {
        const std::size_t row = sample % options_.prompt_rows();
        for (std::size_t t = 0; t < std::min(total, options_.prompt_length); ++t)
            token(sample, t) = options_.prompts[row * options_.prompt_length + t];
    }
    for (std::size_t first = batches_.begin; first < batches_.end; first += caches_.size()) {
        std::vector<Batch> batches;
        for (std::size_t b = first; b < std::min(batches_.end, first + caches_.size()); ++b)
            batches.push_back({{first_of(b), std::min(options_.samples, first_of(b + 1))}, &caches_[b - first], {}});
        for (std::size_t position = 0; position + 1 < total; ++position) {
            context_.progress("samples " + std::to_string(batches.front().samples.begin + 1) + " to " +
                              std::to_string(batches.back().samples.end) + ", token " + std::to_string(position + 1) +
                              " of " + std::to_string(total - 1));
            for (Batch& batch : batches) take_batch(batch, position);
        }
        for (Batch& batch : batches) {
            if (batch.under_way) batch.under_way->finish();
        }
    }
    return std::move(tokens_);
}

void Generator::take_batch(Batch& batch, std::size_t position) {
    const TensorView x = states_.view().row_range(0, batch.samples.size());
    if (stage_.is_first())
        embed(batch, position, x);
    else
        exchange_states(x, false);
    for (const std::unique_ptr<BlockWeights>& weights : blocks_)
        decoder_.decode(*weights, x, x, *batch.cache, position);
    if (stage_.is_last())
        draw(batch, position, x);
    else
        exchange_states(x, true);
}

void Generator::exchange_states(TensorView x, bool sends) const {
    const int peer = stage_.rank_of(sends ? stage_.stage + 1 : stage_.stage - 1);
    const Message message = {peer, x.data, x.bytes()};
    const std::span<const Message> one(&message, 1), none;
    context_.group.start_exchange(sends ? one : none, sends ? none : one)->finish();
}

void Generator::embed(Batch& batch, std::size_t position, TensorView x) {
    const std::size_t count = batch.samples.size();
    batch.ids.resize(count);
    if (position >= options_.prompt_length && stage_.stages > 1) {
        const Message message = {stage_.rank_of(stage_.stages - 1), reinterpret_cast<std::byte*>(batch.ids.data()),
                                 count * sizeof(std::int32_t)};
        context_.control.start_exchange({}, {&message, 1})->finish();
    } else {
        for (std::size_t i = 0; i < count; ++i) batch.ids[i] = token(batch.samples.begin + i, position);
    }
    outer_->embed(batch.ids, x);
}

void Generator::draw(Batch& batch, std::size_t position, TensorView x) {
    const std::size_t next = position + 1, count = batch.samples.size();
    if (next < options_.prompt_length) return;
    Device& device = context_.device;
    const TensorView normed = normed_.view().row_range(0, count), logits = logits_.view().row_range(0, count);
    outer_->norm(x, normed, {inverse_rms_.view().data, DType::f32, 1, count});
    device.linear(normed, outer_->head(), {}, logits);
    const DeviceCounters drawn(device, count + 1);  // the last: logits that are no numbers
    device.count_nonfinite(logits, drawn.at(count));
    const TensorView tokens = {drawn.all().data, DType::u64, 1, count};
    device.sample_tokens(logits, options_.rule, options_.first_number + batch.samples.begin, next, tokens);
    const std::vector<std::uint64_t> found = drawn.read();
    if (found[count] > 0) {
        throw NonFiniteError("the model's logits are not finite after " + std::to_string(next) +
                             " tokens of samples from " + std::to_string(batch.samples.begin) + " on");
    }
    if (batch.under_way) batch.under_way->finish();
    batch.under_way.reset();
    batch.ids.assign(found.begin(), found.begin() + static_cast<std::ptrdiff_t>(count));
    for (std::size_t i = 0; i < count; ++i) token(batch.samples.begin + i, next) = batch.ids[i];
    if (stage_.stages == 1 || next + 1 == options_.total_length()) return;
    const Message message = {stage_.rank_of(0), reinterpret_cast<std::byte*>(batch.ids.data()),
                             count * sizeof(std::int32_t)};
    batch.under_way = context_.control.start_exchange({&message, 1}, {});
}

std::size_t bytes_of_rank(const ModelSource& source, DType compute, const GenerationOptions& options,
                          std::size_t pipelines, std::size_t stages) {
    const ModelConfig& config = source.config();
    const std::size_t blocks = (config.blocks.size() + stages - 1) / stages, element = espalier::bytes_of(compute);
    const std::size_t cached = batches_in_flight(options, pipelines, stages) * options.batch *
                               (options.total_length() - 1) * 2 * config.key_value_width() * element;
    std::size_t vectors = 0;
    for (const auto& vector : source.layout().vectors()) vectors += vector.size * sizeof(float);
    const std::size_t of_blocks = blocks * (source.layout().weights() * element + vectors + cached);
    const std::size_t table = source.outer_rows(OuterTensor::embedding) * config.hidden_size;
    const std::size_t embedding = table * espalier::bytes_of(source.outer_dtype(OuterTensor::embedding));
    const bool apart = source.has_own_head() || stages > 1;
    const std::size_t head = table * espalier::bytes_of(compute);
    const std::size_t outer = stages == 1 ? embedding + (apart ? head : 0) : std::max(embedding, head);
    const std::size_t of_row = config.vocabulary + 6 * config.hidden_size + 3 * config.intermediate_size +
                               2 * (config.query_width() + config.key_value_width());
    const std::size_t sum = of_blocks + outer + options.batch * of_row * sizeof(float);
    return sum + sum / 16;  // rotary tables, and what kernels take for themselves
}

}  // namespace

std::vector<std::int32_t> prompts_from_vocabulary(std::size_t samples, std::size_t vocabulary, std::uint64_t seed) {
    constexpr std::uint32_t draws_of_prompts = 0x940397;
    std::vector<std::int32_t> prompts(samples);
    for (std::size_t i = 0; i < samples; ++i) {
        const auto words = philox4x32(
            {static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(std::uint64_t{i} >> 32), 0, draws_of_prompts},
            {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)});
        const std::uint64_t word = (static_cast<std::uint64_t>(words[0]) << 32) | words[1];
        prompts[i] = static_cast<std::int32_t>(static_cast<unsigned __int128>(word) * vocabulary >> 64);
    }
    return prompts;
}

std::size_t choose_stages(const ModelSource& source, DType compute, const GenerationOptions& options, std::size_t ranks,
                          std::size_t bytes, const std::string& advice) {
    std::size_t least = 0;
    for (std::size_t stages = 1; stages <= std::min(ranks, source.config().blocks.size()); ++stages) {
        if (ranks % stages != 0) continue;
        least = bytes_of_rank(source, compute, options, ranks / stages, stages);
        if (least <= bytes) return stages;
    }
    throw ResourceError("a rank would need " + format_bytes(static_cast<double>(least)) +
                        " of memory for its share of the model and of the keys and values of " +
                        std::to_string(options.batch) + " sequences, and has " +
                        format_bytes(static_cast<double>(bytes)) + "; " + advice);
}

std::vector<std::int32_t> generate_tokens(const GenerationContext& context, const GenerationOptions& options) {
    require(options.samples > 0 && options.batch > 0 && options.prompt_length > 0 && options.prompt_rows() > 0 &&
                options.total_length() > 1,
            "something to generate");
    const std::vector<std::size_t> left =
        context.control.all_gather_value(std::min(context.memory, context.device.memory().left()));
    const DType compute = context.device.compute_dtype(context.source.storage().matrix_dtype);
    const std::size_t stages = options.stages > 0
                                   ? options.stages
                                   : choose_stages(context.source, compute, options, left.size(),
                                                   *std::min_element(left.begin(), left.end()), context.advice);
    require(left.size() % stages == 0 && stages <= context.source.config().blocks.size(), "stages of equal pipelines");
    const Stage stage(context.group, stages);
    Generator generator(context, options, stage);
    const IndexRange mine = generator.samples();
    const std::vector<std::int32_t> with_prompts = generator.run();
    const std::size_t length = options.sequence_length, total = options.total_length();
    std::vector<std::int32_t> all(options.samples * length);
    for (std::size_t sample = mine.begin; sample < mine.end; ++sample) {
        std::copy_n(with_prompts.begin() + static_cast<std::ptrdiff_t>((sample - mine.begin + 1) * total - length),
                    length, all.begin() + static_cast<std::ptrdiff_t>(sample * length));
    }
    // The last stage of each pipeline has its samples; pipelines follow each other as their samples do.
    std::vector<std::size_t> offsets = {0};
    for (std::size_t rank = 0; rank < left.size(); ++rank) {
        const std::size_t pipeline = rank / stages;
        const IndexRange batches = part_of(batches_of(options), stage.pipelines, pipeline);
        const bool has_them = rank % stages + 1 == stages;
        offsets.push_back(has_them ? std::min(options.samples, batches.end * options.batch) * length : offsets.back());
    }
    context.control.all_gather(std::span(all), offsets);
    return all;
}

}  // namespace espalier
