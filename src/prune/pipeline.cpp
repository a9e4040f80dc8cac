#include "src/prune/pipeline.h"

#include "mpi/tensor_communicator.h"
#include "src/base/error.h"
#include "src/base/stop_request.h"
#include "src/blocks/block_loader.h"
#include "src/blocks/block_writer.h"
#include "src/method/rounding_loss.h"
#include "src/prune/block_pruner.h"
#include "src/prune/dense_front.h"
#include "src/prune/memory_plan.h"
#include "src/prune/run_messages.h"
#include "src/samples/embedded_samples.h"
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

/// One rank's work on the whole run: in every round the dense pass of all ranks, then its own block group.
class Pipeline {
  public:
    explicit Pipeline(const PipelineContext& context)
        : c_(context),
          config_(context.source.config()),
          layout_(context.source.layout()),
          topology_(static_cast<std::size_t>(context.session.size()), config_.blocks, context.options.block_groups,
                    context.options.samples, context.options.shards),
          group_communicator_(context.session.make_group(my_ranks())),
          group_tensors_(*group_communicator_, context.device),
          group_loader_(context.device, layout_, group_tensors_.get()),
          written_storage_{context.options.output_dtype, context.source.storage().vector_dtypes},
          run_(context.options.output),
          types_(pass_types(context.options, context.device, context.source.storage().matrix_dtype)),
          memory_plan_(
              plan_memory(memory_needs(context.options, config_, layout_, types_, topology_, context.session.rank()),
                          context.device.memory_budget())),
          weights_(context.device, layout_, types_.weights),
          decoder_(context.device, config_, context.options.sequence_length, types_.passes, types_.widest),
          messages_(context.session, context.ledger, context.progress),
          committed_(run_, layout_, written_storage_, context.state.committed),
          dense_reader_([this](std::size_t block) { return group_loader_.read(c_.source, block); }),
          committed_reader_([this](std::size_t block) { return group_loader_.read(committed_, block); }),
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
        for (round_ = 0; round_ < topology_.rounds() && !stopped_; ++round_) {
            const std::optional<std::size_t> g = topology_.group_of(c_.session.rank(), round_);
            std::optional<HiddenStates> x = start_round(g);
            if (stopped_) break;  // as on every rank
            // Groups before the searching one prune nothing; to wait there would keep it from what it needs of them.
            if (g && topology_.groups()[*g].blocks.begin > first_pruned_block()) receive_learning_rate();
            if (x && !stopped_) prune_group(*g, *x);
            x.reset();
            if (!stopped_) receive_learning_rate();
            if (round_ + 1 == topology_.rounds()) break;
            // The next round needs every rank, or none.
            collect(true);
            set_place_of_all("the wait for the other block groups of this round");
            stopped_ = messages_.agree_to_stop(stopped_ || stop_requested());
        }
        collect(true);
        set_place_of_all("the wait for the other ranks at the end");
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

    const std::vector<int>& my_ranks() const {
        return topology_.groups()[topology_.group_of(c_.session.rank(), 0).value()].ranks;
    }

    // ---- the dense pass to the groups of a round
    /// Brings this rank's group of the round to its first block; none when there is nothing to do in it. Collective
    /// over the world as soon as a later group than the first has work. May be stopped, on all ranks.
    std::optional<HiddenStates> start_round(std::optional<std::size_t> mine) {
        std::optional<HiddenStates> x;
        if (mine && has_work(*mine)) {
            x.emplace(make_hidden_states(group_context(*mine).my_samples()));
            const std::size_t first = topology_.groups()[*mine].blocks.begin;
            reader_of(first).prefetch(first);
        }
        const IndexRange groups = topology_.groups_of_round(round_);
        for (std::size_t g = groups.begin; g < groups.end && !stopped_; ++g) {
            HiddenStates* const destination = g == mine && x ? &*x : nullptr;
            set_place_of_all("the hand-over to block " + std::to_string(topology_.groups()[g].blocks.begin));
            if (g > 0 && has_work(g))
                front_->hand_over(topology_.groups()[g], destination);
            else if (destination != nullptr)
                embed(*destination);
            if (work_after(g)) pass_front(topology_.groups()[g].blocks);
        }
        if (!work_after(groups.end - 1)) front_.reset();
        return x;
    }
    /// For the sentence of a rank that waits for too long for others than those of its group.
    void set_place_of_all(const std::string& place) const {
        c_.session.world().set_place(place);
        if (world_tensors_) world_tensors_->get().set_place(place);
    }
    HiddenStates make_hidden_states(IndexRange samples) const {
        return {c_.device, samples, c_.options.sequence_length, config_.hidden_size, memory_plan_.hidden_states};
    }
    void embed(HiddenStates& x) const { embed_samples(c_.device, c_.source, c_.calibration.ids, x); }
    void pass_front(IndexRange blocks) {
        Communicator& world = world_tensors_->get();
        if (!front_) {
            HiddenStates states = make_hidden_states(topology_.dense_samples_of(c_.session.rank()));
            embed(states);
            front_.emplace(c_.device, world, topology_, std::move(states));
        }
        const BlockLoader loader(c_.device, layout_, world);
        BlockReader<BlockPart> reader([&](std::size_t block) { return loader.read(c_.source, block); });
        for (std::size_t block = blocks.begin; block < blocks.end; ++block) {
            set_place_of_all("the dense pass of block " + std::to_string(block));
            if (should_stop(c_.session.world())) return stop();
            c_.progress.live("dense pass, block " + std::to_string(block));
            const BlockPart part = reader.take(block);
            if (block + 1 < blocks.end) reader.prefetch(block + 1);
            loader.load(c_.source.storage(), block, part, weights_);
            front_->pass(decoder_, weights_);
            collect();
        }
    }

    // ---- pruning
    std::size_t first_pruned_block() const { return c_.options.only_blocks ? c_.options.only_blocks->begin : 0; }

    /// The group that searches the learning rate: that of the first pruned block.
    std::size_t searching_group() const {
        for (std::size_t g = 0; g < topology_.groups().size(); ++g) {
            if (topology_.groups()[g].blocks.contains(first_pruned_block())) return g;
        }
        throw BugError("internal error: no group holds the first pruned block");
    }
    const std::vector<int>& searching_ranks() const { return topology_.groups()[searching_group()].ranks; }
    /// In the round of the searching group every rank takes part in one broadcast over the world, unless the rate is
    /// known: ranks outside of that group before their first pruned block or at the round's end, those inside, in
    /// share_learning_rate, right after the search, and those that stop when they do.
    bool awaits_learning_rate() const {
        return uses_regional_optimization(c_.options.method) && !learning_rate_ &&
               topology_.groups_of_round(round_).contains(searching_group());
    }
    void receive_learning_rate() {
        if (!awaits_learning_rate()) return;
        const std::vector<int>& ranks = searching_ranks();
        if (std::find(ranks.begin(), ranks.end(), c_.session.rank()) != ranks.end()) return;
        c_.progress.live("waiting for the learning rate");
        set_place_of_all("the wait for the learning rate, which another block group searches");
        std::array<double, 1> rate{};
        c_.session.world().broadcast(std::span<double>(rate), ranks.front());
        if (rate[0] == no_rate)
            stop();
        else
            learning_rate_ = rate[0];
    }
    /// Between two blocks: has a signal come to any of the ranks? Batch systems send it to all.
    static bool should_stop(Communicator& ranks) {
        const std::vector<char> asked = ranks.all_gather_value(static_cast<char>(stop_requested()));
        return std::find(asked.begin(), asked.end(), 1) != asked.end();
    }
    void stop() {
        stopped_ = true;
        messages_.post_stopped();
    }
    void stop_group() {
        stop();
        if (!awaits_learning_rate()) return;
        // The other groups wait for the rate that this one was to find.
        std::array<double, 1> rate = {no_rate};
        c_.session.world().broadcast(std::span<double>(rate), searching_ranks().front());
    }
    void share_learning_rate(const LearningRateChoice& choice) {
        learning_rate_ = choice.learning_rate;
        const int sender = searching_ranks().front();
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

    BlockReader<BlockPart>& reader_of(std::size_t block) {
        return is_committed(block) ? committed_reader_ : dense_reader_;
    }
    /// The block on every rank of the group, the next one of `blocks` on its way to host memory. Returns what was read.
    BlockPart fetch(std::size_t block, IndexRange blocks) {
        BlockPart part = reader_of(block).take(block);
        if (block + 1 < blocks.end) reader_of(block + 1).prefetch(block + 1);
        group_loader_.load(is_committed(block) ? written_storage_ : c_.source.storage(), block, part, weights_);
        return part;
    }

    void prune_group(std::size_t g, HiddenStates& x) {
        const BlockGroup& group = topology_.groups()[g];
        const GroupContext context = group_context(g);
        PhaseClock clock(time_, {group_communicator_.get(), &group_tensors_.get()});
        BlockPruner pruner(context, c_.options, decoder_, clock);
        if (learning_rate_) pruner.set_learning_rate(*learning_rate_);
        pruner.on_idle([this] { collect(); });
        pruner.on_search([this](const LearningRateChoice& choice) { share_learning_rate(choice); });
        IndexRange blocks = group.blocks;
        while (is_committed(blocks.end - 1)) --blocks.end;
        for (std::size_t block = blocks.begin; block < blocks.end; ++block) {
            clock.begin_block(block);
            if (is_committed(block)) {
                fetch(block, blocks);
                pruner.propagate(weights_, x);
                static_cast<void>(clock.take());
                continue;
            }
            if (should_stop(*group_communicator_)) return stop_group();
            c_.progress.live("block " + std::to_string(block));
            const BlockPart dense = fetch(block, blocks);
            clock.mark("load");
            PrunedBlock result;
            if (c_.options.prunes(block)) {
                result = pruner.prune(block, weights_, x);
                measure_rounding(context, dense, result, clock);
            } else {
                round_to_output(block);
                pruner.propagate(weights_, x);
                result.report.block = block;
                result.report.pruned = false;
            }
            if (group_communicator_->rank() == group.owner_of(block))
                hand_to_writer(block, dense, result, clock);
            else
                static_cast<void>(clock.take());
            collect();
        }
    }

    /// The owner copies the finished block to host memory and lets background threads write it.
    void hand_to_writer(std::size_t block, const BlockPart& dense, PrunedBlock& result, PhaseClock& clock) {
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
        const std::span<const std::byte> vectors = dense.vectors();
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
        writer_.start(std::move(out));
    }

    void measure_rounding(const GroupContext& context, const BlockPart& dense, PrunedBlock& result,
                          PhaseClock& clock) const {
        if (!uses_regional_optimization(c_.options.method)) return;
        const double share = unchanged_weight_share(context, dense, c_.options.output_dtype, weights_, result.mask);
        clock.mark("rounding_loss");
        result.report.unchanged_weight_share = share;
        if (result.report.block != first_pruned_block() || share < 0.1) return;
        result.sentences.push_back(fmt::format(
            "warning: {} rounds {:.0f} % of the surviving weights of block {} back to their dense values: "
            "so much of regional optimisation is lost (--ro-learning-rate auto finds a rate that moves them, "
            "--output-dtype float32 keeps it)",
            name_of(written_storage_.matrix_dtype), 100 * share, result.report.block));
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
    std::unique_ptr<Communicator> group_communicator_;
    TensorCommunicator group_tensors_;
    BlockLoader group_loader_;
    std::optional<TensorCommunicator> world_tensors_;  ///< between block groups
    BlockStorage written_storage_;
    RunFolder run_;
    PassTypes types_;
    MemoryPlan memory_plan_;
    BlockWeights weights_;
    DecoderBlock decoder_;
    std::optional<double> learning_rate_;
    std::size_t round_ = 0;
    bool stopped_ = false;
    RunMessages messages_;
    std::optional<DenseFront> front_;  ///< of several groups, as long as a later one has work
    CommittedBlocks committed_;
    BlockReader<BlockPart> dense_reader_;
    BlockReader<BlockPart> committed_reader_;
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
