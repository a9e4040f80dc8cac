#include "src/prune/pipeline.h"

#include "src/base/error.h"
#include "src/base/stop_request.h"
#include "src/blocks/block_loader.h"
#include "src/prune/block_files.h"
#include "src/prune/block_on_device.h"
#include "src/prune/block_step.h"
#include "src/prune/dense_front.h"
#include "src/prune/learning_rate_exchange.h"
#include "src/prune/run_links.h"
#include "src/prune/run_messages.h"
#include "src/samples/embedded_samples.h"
#include "src/weights/block_reader.h"

#include <algorithm>
#include <optional>

namespace espalier {

namespace {

/// The rate that is known before a run begins: found by an earlier start of it, or given.
std::optional<double> known_learning_rate(const PipelineContext& context) {
    return context.state.learning_rate ? context.state.learning_rate : context.options.ro.learning_rate;
}

/// One rank's work on the whole run: in every round the dense pass of all ranks, then its own block group.
class Pipeline {
  public:
    explicit Pipeline(const PipelineContext& context)
        : c_(context),
          topology_(static_cast<std::size_t>(context.session.size()), context.source.config().blocks.size(),
                    context.options.block_groups, context.options.samples, context.options.shards),
          links_(context.session, context.device, topology_),
          loader_(context.device, context.source.layout(), links_.group_tensors()),
          on_device_(context.device, context.source.config(), context.source.layout(), context.options,
                     context.source.storage()),
          learning_rate_(context.session, context.options, topology_, known_learning_rate(context)),
          messages_(context.session, context.ledger, context.progress),
          files_(context, loader_) {}

    bool run() {
        for (round_ = 0; round_ < topology_.rounds() && !stopped_; ++round_) {
            const std::optional<std::size_t> g = topology_.group_of(c_.session.rank(), round_);
            std::optional<HiddenStates> x = start_round(g);
            if (stopped_) break;  // as on every rank
            // Groups before the searching one prune nothing; to wait there would keep it from what it needs of them.
            if (g && *g > learning_rate_.searching_group()) receive_learning_rate();
            if (x && !stopped_) prune_group(*g, *x);
            x.reset();
            if (!stopped_) receive_learning_rate();
            if (round_ + 1 == topology_.rounds()) break;
            // The next round needs every rank, or none.
            collect(true);
            links_.set_place_of_all("the wait for the other block groups of this round");
            stopped_ = messages_.agree_to_stop(stopped_ || stop_requested());
        }
        collect(true);
        links_.set_place_of_all("the wait for the other ranks at the end");
        return messages_.finish(c_.source.config().blocks.size());
    }

  private:
    bool has_work(std::size_t g) const {
        const IndexRange blocks = topology_.groups()[g].blocks;
        for (std::size_t block = blocks.begin; block < blocks.end; ++block) {
            if (!files_.is_committed(block)) return true;
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
        return {.device = c_.device,
                .group = links_.group_tensors(),
                .control = links_.group(),
                .topology = topology_,
                .block_group = topology_.groups()[g],
                .config = c_.source.config(),
                .layout = c_.source.layout(),
                .tokens = c_.options.sequence_length};
    }

    // ---- the dense pass to the groups of a round
    /// Brings this rank's group of the round to its first block; none when there is nothing to do in it. Collective
    /// over the world as soon as a later group than the first has work. May be stopped, on all ranks.
    std::optional<HiddenStates> start_round(std::optional<std::size_t> mine) {
        std::optional<HiddenStates> x;
        if (mine && has_work(*mine)) {
            x.emplace(make_hidden_states(group_context(*mine).my_samples(), "hidden states"));
            const std::size_t first = topology_.groups()[*mine].blocks.begin;
            files_.prefetch(first);
        }
        const IndexRange groups = topology_.groups_of_round(round_);
        for (std::size_t g = groups.begin; g < groups.end && !stopped_; ++g) {
            HiddenStates* const destination = g == mine && x ? &*x : nullptr;
            links_.set_place_of_all("the hand-over to block " + std::to_string(topology_.groups()[g].blocks.begin));
            if (g > 0 && has_work(g))
                front_->hand_over(topology_.groups()[g], destination);
            else if (destination != nullptr)
                embed(*destination);
            if (work_after(g)) pass_front(topology_.groups()[g].blocks);
        }
        if (!work_after(groups.end - 1)) front_.reset();
        return x;
    }
    HiddenStates make_hidden_states(IndexRange samples, const char* name) const {
        return {c_.device, samples, c_.options.sequence_length, c_.source.config().hidden_size, c_.hidden_states, name};
    }
    void embed(HiddenStates& x) const { embed_samples(c_.device, c_.source, c_.calibration.ids, x); }
    void pass_front(IndexRange blocks) {
        Communicator& world = links_.world_tensors();
        if (!front_) {
            HiddenStates states =
                make_hidden_states(topology_.dense_samples_of(c_.session.rank()), states_for_later_groups);
            embed(states);
            front_.emplace(c_.device, world, topology_, std::move(states));
        }
        const BlockLoader loader(c_.device, c_.source.layout(), world);
        BlockReader<BlockPart> reader([&](std::size_t block) { return loader.read(c_.source, block); });
        for (std::size_t block = blocks.begin; block < blocks.end; ++block) {
            links_.set_place_of_all("the dense pass of block " + std::to_string(block));
            if (BlockStep::should_stop(c_.session.world())) return stop();
            c_.progress.live("dense pass, block " + std::to_string(block));
            const BlockPart part = reader.take(block);
            if (block + 1 < blocks.end) reader.prefetch(block + 1);
            front_->take(loader, c_.source.storage(), block, part, on_device_);
            collect();
        }
    }

    // ---- the learning rate of regional optimisation
    void receive_learning_rate() {
        if (!learning_rate_.is_awaited(round_) || learning_rate_.searches_here()) return;
        c_.progress.live("waiting for the learning rate");
        links_.set_place_of_all("the wait for the learning rate, which another block group searches");
        if (!learning_rate_.receive()) stop();
    }
    void share_learning_rate(const LearningRateChoice& choice) {
        learning_rate_.share(choice.learning_rate);
        if (c_.session.rank() == learning_rate_.speaker()) messages_.post(choice);
        collect();
    }
    void stop() {
        stopped_ = true;
        messages_.post(RankStopped{});
    }
    void stop_group() {
        stop();
        // The others wait for the rate, from this group or, where another searches it, together with this one.
        if (learning_rate_.is_awaited(round_)) learning_rate_.give_up();
    }

    // ---- pruning
    void prune_group(std::size_t g, HiddenStates& x) {
        const BlockGroup& group = topology_.groups()[g];
        const GroupContext context = group_context(g);
        PhaseClock clock(time_, {&links_.group(), &links_.group_tensors()});
        BlockPruner pruner(context, c_.options, on_device_.decoder, clock);
        if (learning_rate_.rate()) pruner.set_learning_rate(*learning_rate_.rate());
        pruner.on_idle([this] { collect(); });
        pruner.on_search([this](const LearningRateChoice& choice) { share_learning_rate(choice); });
        BlockStep step({.group = context,
                        .options = c_.options,
                        .stored = c_.source.storage(),
                        .written = files_.written_storage(),
                        .loader = loader_,
                        .weights = on_device_.weights,
                        .pruner = pruner,
                        .clock = clock});
        pruner.begin(x);
        IndexRange blocks = group.blocks;
        while (files_.is_committed(blocks.end - 1)) --blocks.end;
        for (std::size_t block = blocks.begin; block < blocks.end; ++block) {
            clock.begin_block(block);
            if (files_.is_committed(block)) {
                if (c_.options.keeps_dense_stream()) {
                    loader_.load(c_.source.storage(), block, loader_.read(c_.source, block), on_device_.weights);
                    pruner.propagate_dense(on_device_.weights);
                }
                loader_.load(files_.written_storage(), block, files_.read(block, blocks), on_device_.weights);
                pruner.propagate(on_device_.weights, x);
                static_cast<void>(clock.take());
                continue;
            }
            if (BlockStep::should_stop(links_.group())) return stop_group();
            c_.progress.live("block " + std::to_string(block));
            const BlockPart part = files_.read(block, blocks);
            PrunedBlock result = step.take(block, part, x);
            if (links_.group().rank() == group.owner_of(block))
                hand_to_writer(step, part, result, clock);
            else
                static_cast<void>(clock.take());
            collect();
        }
    }

    /// The owner copies the finished block to host memory and lets background threads write it.
    void hand_to_writer(const BlockStep& step, const BlockPart& part, PrunedBlock& result, PhaseClock& clock) {
        // Blocks before this one go first: more in host memory would break the bound.
        clock.mark("hand_over");
        files_.writer().wait_for_room();
        for (const WrittenBlock& written : files_.writer().take_written(false)) messages_.post(written);
        clock.mark("write_wait");
        BlockToWrite out = step.copy_to_host(result, part);
        clock.mark("hand_over");
        result.report.costs = clock.take();
        out.metrics = result.report.to_json(c_.source.layout());
        if (!result.sentences.empty()) out.metrics["sentences"] = result.sentences;
        files_.writer().start(std::move(out));
    }

    // ---- bookkeeping
    /// Posts what this rank has written; on rank 0, enters what has arrived.
    void collect(bool wait = false) {
        for (const WrittenBlock& written : files_.writer().take_written(wait)) messages_.post(written);
        messages_.collect();
    }

    const PipelineContext& c_;
    RealClock time_;
    Topology topology_;
    RunLinks links_;
    BlockLoader loader_;  ///< among the ranks of the group
    BlockOnDevice on_device_;
    LearningRateExchange learning_rate_;
    RunMessages messages_;
    BlockFiles files_;
    std::optional<DenseFront> front_;  ///< of several groups, as long as a later one has work
    std::size_t round_ = 0;
    bool stopped_ = false;
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
