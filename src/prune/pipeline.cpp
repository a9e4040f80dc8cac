#include "src/prune/pipeline.h"

#include "mpi/tensor_communicator.h"
#include "src/base/error.h"
#include "src/base/stop_request.h"
#include "src/prune/block_pruner.h"
#include "src/prune/block_writer.h"
#include "src/prune/dense_handoff.h"
#include "src/prune/embedded_samples.h"
#include "src/prune/memory_plan.h"
#include "src/prune/rounding_loss.h"
#include "src/prune/run_messages.h"
#include "src/prune/sample_reader.h"
#include "src/weights/block_reader.h"
#include "src/weights/run_source.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>

namespace espalier {

namespace {

/// In the place of a learning rate: the group that was to find one has stopped.
constexpr double no_rate = -1;

/// One rank's work on the whole run: its block groups one after the other.
class Pipeline {
  public:
    explicit Pipeline(const PipelineContext& context)
        : c_(context),
          config_(context.source.config()),
          layout_(context.source.layout()),
          topology_(static_cast<std::size_t>(context.session.size()), config_.blocks, context.options.block_groups,
                    context.options.samples, context.options.shards),
          my_groups_(topology_.groups_of(context.session.rank())),
          group_communicator_(context.session.make_group(topology_.groups()[my_groups_.front()].ranks)),
          group_tensors_(*group_communicator_, context.device),
          written_storage_{context.options.output_dtype, context.source.storage().vector_dtypes},
          run_(context.options.output),
          types_(pass_types(context.options, context.device, context.source.storage().matrix_dtype)),
          memory_plan_(
              plan_memory(memory_needs(context.options, config_, layout_, types_, topology_, context.session.rank()),
                          context.device.memory_budget())),
          weights_(context.device, layout_, types_.weights),
          decoder_(context.device, config_, context.options.sequence_length, types_.passes, types_.widest),
          messages_(context.session, context.ledger, context.progress),
          dense_reader_([this](std::size_t block) { return read(block, Version::dense); }),
          written_reader_([this](std::size_t block) { return read(block, Version::as_written); }),
          writer_(run_, layout_, context.options.pattern, context.block_attributes,
                  context.options.on_gpu ? WriterShare{std::min(4, context.host_threads), 3} : WriterShare{}) {
        if (topology_.groups().size() > 1) world_tensors_.emplace(context.session.world(), context.device);
        if (memory_plan_.hidden_states == StoragePlace::host) {
            c_.progress.line("the hidden states lie in host memory and travel to the GPU and back: " +
                             memory_plan_.text());
        }
        if (!c_.state.learning_rate.is_null())
            learning_rate_ = LearningRateChoice::from_json(c_.state.learning_rate).learning_rate;
        else if (c_.options.ro.learning_rate)
            learning_rate_ = *c_.options.ro.learning_rate;
    }

    bool run() {
        std::unique_ptr<HiddenStates> handed_on;  // to the next group, when it is this rank's too
        for (const std::size_t g : my_groups_) {
            HiddenStates x = first_hidden_states(g, std::move(handed_on));
            if (work_after(g)) handed_on = hand_on(g, x);
            // Groups before the searching one prune nothing; to wait there would keep it from its hidden states.
            if (topology_.groups()[g].blocks.begin > first_pruned_block()) receive_learning_rate();
            if (has_work(g) && !stopped_) prune_group(g, x);
        }
        if (!stopped_) receive_learning_rate();
        collect(true);
        return messages_.finish(config_.blocks);
    }

  private:
    bool is_committed(std::size_t block) const { return c_.state.committed.contains(block); }
    bool has_work(std::size_t g) const {
        const IndexRange blocks = topology_.groups()[g].blocks;
        for (std::size_t block = blocks.begin; block < blocks.end; ++block) {
            if (!is_committed(block)) return true;
        }
        return false;
    }
    bool work_after(std::size_t g) const {
        for (std::size_t later = g + 1; later < topology_.groups().size(); ++later) {
            if (has_work(later)) return true;
        }
        return false;
    }
    GroupContext group_context(std::size_t g) const {
        return {c_.device, group_tensors_.get(),      *group_communicator_, topology_, topology_.groups()[g], config_,
                layout_,   c_.options.sequence_length};
    }

    // ---- reading
    enum class Version { dense, as_written };

    const BlockStorage& storage_of(Version version) const {
        return version == Version::dense ? c_.source.storage() : written_storage_;
    }
    HostBuffer read(std::size_t block, Version version) const {
        HostBuffer raw(c_.device, storage_of(version).total_bytes(layout_));
        if (version == Version::dense)
            c_.source.read_block(block, raw.bytes());
        else
            read_committed_block(run_, block, c_.state.committed.at(block), layout_, written_storage_, raw.bytes());
        return raw;
    }
    BlockReader& reader_of(Version version) { return version == Version::dense ? dense_reader_ : written_reader_; }
    /// What a block is read as while its group is pruned.
    Version version_when_pruning(std::size_t block) const {
        return is_committed(block) ? Version::as_written : Version::dense;
    }
    /// The block's owner reads, all ranks of the group get it; the block that this rank reads next is prefetched.
    /// Returns what was read, on the owner.
    HostBuffer fetch(std::size_t g, std::size_t block, Version version, bool pruning) {
        const BlockGroup& group = topology_.groups()[g];
        const int owner = group.owner_of(block);
        HostBuffer raw;
        if (group_communicator_->rank() == owner) {
            raw = reader_of(version).take(block);
            const std::size_t next = block + group.ranks.size();
            if (next < group.blocks.end) reader_of(pruning ? version_when_pruning(next) : version).prefetch(next);
            load_block(c_.device, layout_, storage_of(version), raw, weights_);
        }
        broadcast_block(group_tensors_.get(), layout_, owner, weights_);
        refuse_nonfinite_weights(c_.device, layout_, block, weights_);
        return raw;
    }

    // ---- dense hidden states at the start of a group
    HiddenStates make_hidden_states(std::size_t g) const {
        return {c_.device, group_context(g).my_samples(), c_.options.sequence_length, config_.hidden_size,
                memory_plan_.hidden_states};
    }
    HiddenStates first_hidden_states(std::size_t g, std::unique_ptr<HiddenStates> handed_on) {
        if (g > 0 && (has_work(g) || work_after(g))) {
            HiddenStates x = handed_on ? std::move(*handed_on) : make_hidden_states(g);
            DenseHandoff(world_tensors_->get(), topology_, topology_.groups()[g - 1], topology_.groups()[g])
                .receive(c_.device, x);
            return x;
        }
        HiddenStates x = make_hidden_states(g);
        if (g == 0 && (has_work(g) || work_after(g))) embed_samples(c_.device, c_.source, c_.calibration.ids, x);
        return x;
    }
    /// Passes a copy of x through the dense blocks of group g, then to the next group. Returns what stays on this rank.
    std::unique_ptr<HiddenStates> hand_on(std::size_t g, const HiddenStates& x) {
        const BlockGroup& group = topology_.groups()[g];
        const BlockGroup& next = topology_.groups()[g + 1];
        c_.progress.live("dense pass through the blocks of group " + std::to_string(g));
        HiddenStates y = make_hidden_states(g);
        std::unique_ptr<HiddenStates> staying;
        for (const int rank : next.ranks) {
            if (rank == c_.session.rank()) staying = std::make_unique<HiddenStates>(make_hidden_states(g + 1));
        }
        DenseHandoff handoff(world_tensors_->get(), topology_, group, next);
        for (std::size_t block = group.blocks.begin; block < group.blocks.end; ++block) {
            fetch(g, block, Version::dense, false);
            // x itself is still needed: only the first block reads it.
            const bool is_first = block == group.blocks.begin;
            SampleReader states(c_.device, is_first ? x : y, all_samples_of(y));
            for (std::size_t n = y.samples().begin; n < y.samples().end; ++n) {
                const TensorView state = states.next();
                const TensorView output = is_first && !y.on_host() ? y.sample(n) : state;
                decoder_.forward(weights_, state, output, nullptr);
                y.write_back(n, output);
                if (block + 1 < group.blocks.end) continue;
                handoff.send(c_.device, n, output, staying.get());
                if (y.on_host()) handoff.finish();  // the reader's buffers are used again
            }
        }
        handoff.finish();
        return staying;
    }

    // ---- pruning
    std::size_t first_pruned_block() const { return c_.options.only_blocks ? c_.options.only_blocks->begin : 0; }

    /// The group that searches the learning rate: that of the first pruned block.
    const BlockGroup& searching_group() const {
        for (const BlockGroup& group : topology_.groups()) {
            if (group.blocks.contains(first_pruned_block())) return group;
        }
        throw BugError("internal error: no group holds the first pruned block");
    }
    /// Ranks outside of the searching group wait for its result before their first pruned block; those inside send it,
    /// in share_learning_rate, right after the search. Together one collective broadcast over the world.
    void receive_learning_rate() {
        if (!uses_regional_optimization(c_.options.method) || learning_rate_) return;
        const std::vector<int>& ranks = searching_group().ranks;
        if (std::find(ranks.begin(), ranks.end(), c_.session.rank()) != ranks.end()) return;
        c_.progress.live("waiting for the learning rate");
        std::array<double, 1> rate{};
        c_.session.world().broadcast(std::span<double>(rate), ranks.front());
        if (rate[0] == no_rate)
            stop();
        else
            learning_rate_ = rate[0];
    }
    /// Between two blocks: has a signal come to any rank of the group? Batch systems send it to all.
    bool should_stop() const {
        const std::vector<char> asked = group_communicator_->all_gather_value(static_cast<char>(stop_requested()));
        return std::find(asked.begin(), asked.end(), 1) != asked.end();
    }
    void stop() {
        stopped_ = true;
        messages_.post_stopped();
    }
    void stop_group() {
        stop();
        if (!uses_regional_optimization(c_.options.method) || learning_rate_) return;
        // The other groups wait for the rate that this one was to find.
        std::array<double, 1> rate = {no_rate};
        c_.session.world().broadcast(std::span<double>(rate), searching_group().ranks.front());
    }
    void share_learning_rate(const LearningRateChoice& choice) {
        learning_rate_ = choice.learning_rate;
        const int sender = searching_group().ranks.front();
        std::array<double, 1> rate = {choice.learning_rate};
        c_.session.world().broadcast(std::span<double>(rate), sender);
        if (c_.session.rank() == sender) messages_.post(choice);
        collect();
    }

    /// A block that is copied goes on with the values that are written.
    void round_to_output(std::size_t block) {
        if (weights_.dtype() == DType::f32) c_.device.round_to(c_.options.output_dtype, weights_.matrices.all());
        refuse_overflow(c_.device, layout_, c_.options.output_dtype, block, weights_);
    }

    void prune_group(std::size_t g, HiddenStates& x) {
        const BlockGroup& group = topology_.groups()[g];
        const GroupContext context = group_context(g);
        PhaseClock clock(time_, {group_communicator_.get(), &group_tensors_.get()});
        BlockPruner pruner(context, c_.options, decoder_, clock);
        if (learning_rate_) pruner.set_learning_rate(*learning_rate_);
        pruner.on_idle([this] { collect(); });
        pruner.on_search([this](const LearningRateChoice& choice) { share_learning_rate(choice); });
        std::size_t last_open = group.blocks.begin;
        for (std::size_t block = group.blocks.begin; block < group.blocks.end; ++block) {
            if (!is_committed(block)) last_open = block;
        }
        for (std::size_t block = group.blocks.begin; block <= last_open; ++block) {
            if (is_committed(block)) {
                fetch(g, block, Version::as_written, true);
                pruner.propagate(weights_, x);
                static_cast<void>(clock.take());
                continue;
            }
            if (should_stop()) return stop_group();
            c_.progress.live("block " + std::to_string(block));
            HostBuffer dense = fetch(g, block, Version::dense, true);
            clock.mark("load");
            PrunedBlock result;
            if (c_.options.prunes(block)) {
                result = pruner.prune(block, weights_, x);
            } else {
                round_to_output(block);
                pruner.propagate(weights_, x);
                result.report.block = block;
                result.report.pruned = false;
            }
            if (group_communicator_->rank() == group.owner_of(block))
                hand_to_writer(block, std::move(dense), result, clock);
            else
                static_cast<void>(clock.take());
            collect();
        }
    }

    /// The owner copies the finished block to host memory and lets background threads write it.
    void hand_to_writer(std::size_t block, HostBuffer dense, PrunedBlock& result, PhaseClock& clock) {
        // Blocks before this one go first: more in host memory would break the bound.
        clock.mark("hand_over");
        writer_.wait_for_room();
        for (const WrittenBlock& written : writer_.take_written(false)) messages_.post(written);
        clock.mark("write_wait");
        BlockToWrite out;
        out.block = block;
        out.storage = written_storage_;
        out.tensors = HostBuffer(c_.device, written_storage_.total_bytes(layout_));
        c_.device.convert(weights_.matrices.all(),
                          out.tensors.view(written_storage_.matrix_dtype, 0, 1, layout_.weights()));
        // Vectors keep the bits they were read with.
        const auto vectors = dense.bytes().subspan(c_.source.storage().matrix_bytes(layout_));
        std::copy(vectors.begin(), vectors.end(),
                  out.tensors.bytes().subspan(written_storage_.matrix_bytes(layout_)).begin());
        if (result.report.pruned) {
            out.mask = HostBuffer(c_.device, layout_.weights());
            c_.device.copy(result.mask.all(), out.mask.view(DType::u8, 0, 1, layout_.weights()));
        }
        c_.device.synchronize();
        clock.mark("hand_over");
        result.report.costs = clock.take();
        out.metrics = result.report.to_json(layout_);
        if (!result.sentences.empty()) out.metrics["sentences"] = result.sentences;
        if (result.report.pruned && uses_regional_optimization(c_.options.method)) {
            out.dense = std::move(dense);
            out.complete_metrics = [this](BlockToWrite& written) { measure_rounding(written); };
        }
        writer_.start(std::move(out));
    }

    void measure_rounding(BlockToWrite& block) const {
        const double share =
            unchanged_weight_share(c_.source.storage().matrix_dtype, block.dense.bytes(), written_storage_.matrix_dtype,
                                   block.tensors.bytes(), mask_bytes(block));
        block.dense = {};
        block.metrics["unchanged_weight_share"] = share;
        if (block.block != first_pruned_block() || share < 0.1) return;
        block.metrics["sentences"].push_back(fmt::format(
            "warning: {} rounds {:.0f} % of the surviving weights of block {} back to their dense values: "
            "so much of regional optimisation is lost (--ro-learning-rate auto finds a rate that moves them, "
            "--output-dtype float32 keeps it)",
            name_of(written_storage_.matrix_dtype), 100 * share, block.block));
    }

    // ---- bookkeeping
    /// Posts what this rank has written; on rank 0, enters what has arrived.
    void collect(bool wait = false) {
        for (const WrittenBlock& written : writer_.take_written(wait)) messages_.post(written);
        messages_.collect();
    }

    const PipelineContext& c_;
    RealClock time_;
    const ModelConfig& config_;
    const BlockLayout& layout_;
    Topology topology_;
    std::vector<std::size_t> my_groups_;
    std::unique_ptr<Communicator> group_communicator_;
    TensorCommunicator group_tensors_;
    std::optional<TensorCommunicator> world_tensors_;  ///< between block groups
    BlockStorage written_storage_;
    RunFolder run_;
    PassTypes types_;
    MemoryPlan memory_plan_;
    BlockWeights weights_;
    DecoderBlock decoder_;
    std::optional<double> learning_rate_;
    bool stopped_ = false;
    RunMessages messages_;
    BlockReader dense_reader_;
    BlockReader written_reader_;
    BlockWriter writer_;
};

}  // namespace

bool prune_model(const PipelineContext& context) {
    Pipeline pipeline(context);
    try {
        return pipeline.run();
    } catch (...) {
        // While the pipeline still stands: its end waits for files under way, and the other ranks would wait with it.
        if (context.session.size() > 1) context.session.fail(as_error(std::current_exception()));
        throw;
    }
}

}  // namespace espalier
