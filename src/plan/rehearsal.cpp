#include "src/plan/rehearsal.h"

#include "src/base/error.h"
#include "src/blocks/block_loader.h"
#include "src/prune/block_on_device.h"
#include "src/prune/block_step.h"
#include "src/prune/dense_front.h"
#include "src/samples/embedded_samples.h"

#include <algorithm>
#include <functional>

namespace espalier {

namespace {

/// The played rank's group, and its place there.
struct Place {
    const BlockGroup& group;
    std::size_t me;
};

Place place_of(const RehearsedRun& run) {
    for (const BlockGroup& group : run.topology.groups()) {
        const auto found = std::find(group.ranks.begin(), group.ranks.end(), run.rank);
        if (group.blocks.contains(run.block) && found != group.ranks.end()) {
            return {group, static_cast<std::size_t>(found - group.ranks.begin())};
        }
    }
    throw BugError("internal error: a rank is rehearsed on a block of another group");
}

/// Where a rehearsal takes place.
struct Stage {
    Device& device;
    const Clock& time;
    Communicator& tensors;
    Communicator& control;
    std::function<void(HiddenStates&)> embed;
    std::function<BlockPart(const BlockLoader&)> read;
    std::function<void(const std::string&)> after_phase;
    StoragePlace hidden_states = StoragePlace::device;
};

Rehearsal result_of(const Device& device, double flops_before, PhaseClock& clock) {
    Rehearsal result;
    result.flops = device.flops() - flops_before;
    result.memory = device.memory().items_at_peak();
    result.phases = clock.take();
    return result;
}

Rehearsal prune_block(const RehearsedRun& run, const Stage& stage) {
    Device& device = stage.device;
    PruneOptions options = run.options;
    options.only_blocks.reset();  // whichever block stands for all, it is pruned
    const Place place = place_of(run);
    const GroupContext context{.device = device,
                               .group = stage.tensors,
                               .control = stage.control,
                               .topology = run.topology,
                               .block_group = place.group,
                               .config = run.model.config,
                               .layout = run.model.layout,
                               .tokens = run.options.sequence_length};
    const StoragePlace where = stage.hidden_states;
    const std::size_t tokens = run.options.sequence_length, hidden = run.model.config.hidden_size;
    BlockOnDevice on_device(device, run.model.config, run.model.layout, run.options, run.model.storage);
    HiddenStates x(device, context.my_samples(), tokens, hidden, where);
    const IndexRange kept = run.topology.rounds() > 1 ? run.topology.dense_samples_of(run.rank) : IndexRange{};
    const HiddenStates of_later_groups(device, kept, tokens, hidden, where, states_for_later_groups);
    stage.embed(x);
    const BlockLoader loader(device, run.model.layout, stage.tensors);
    const BlockPart part = stage.read(loader);
    device.synchronize();

    device.reset_memory_peak();
    PhaseClock clock(stage.time, {&stage.tensors, &stage.control});
    clock.after_mark(stage.after_phase);
    BlockPruner pruner(context, options, on_device.decoder, clock);
    pruner.begin(x);
    if (!run.searches_rate) pruner.set_learning_rate(run.options.ro.learning_rate.value_or(3e-7));
    BlockStorage written = run.model.storage;
    written.matrix_dtype = run.options.output_dtype;
    BlockStep step({.group = context,
                    .options = options,
                    .stored = run.model.storage,
                    .written = written,
                    .loader = loader,
                    .weights = on_device.weights,
                    .pruner = pruner,
                    .clock = clock});
    const double flops_before = device.flops();
    static_cast<void>(BlockStep::should_stop(stage.control));
    const PrunedBlock pruned = step.take(run.block, part, x);
    if (place.group.owner_of(run.block) == static_cast<int>(place.me)) {
        static_cast<void>(step.copy_to_host(pruned, part));
        clock.mark("hand_over");
    }
    return result_of(device, flops_before, clock);
}

Rehearsal pass_densely(const RehearsedRun& run, const Stage& stage) {
    Device& device = stage.device;
    const Place place = place_of(run);
    const auto make_states = [&](IndexRange samples, const char* name) {
        return HiddenStates(device, samples, run.options.sequence_length, run.model.config.hidden_size,
                            stage.hidden_states, name);
    };
    BlockOnDevice on_device(device, run.model.config, run.model.layout, run.options, run.model.storage);
    HiddenStates own = make_states(run.topology.dense_samples_of(run.rank), states_for_later_groups);
    stage.embed(own);
    DenseFront front(device, stage.tensors, run.topology, std::move(own));
    HiddenStates x = make_states(run.topology.samples_of(place.group, place.me), "hidden states");
    const BlockLoader loader(device, run.model.layout, stage.tensors);
    const BlockPart part = stage.read(loader);
    device.synchronize();

    device.reset_memory_peak();
    PhaseClock clock(stage.time, {&stage.tensors, &stage.control});
    clock.after_mark(stage.after_phase);
    const double flops_before = device.flops();
    static_cast<void>(BlockStep::should_stop(stage.control));
    front.take(loader, run.model.storage, run.block, part, on_device, [&](const char* phase) { clock.mark(phase); });
    front.hand_over(place.group, &x);
    device.synchronize();
    clock.mark("hand_over");
    return result_of(device, flops_before, clock);
}

using Work = Rehearsal (*)(const RehearsedRun&, const Stage&);

/// `first`: of the ranks that work together, `members` of them, among all.
Rehearsal on_modelled_device(const RehearsedRun& run, const DeviceModel& model, StoragePlace hidden_states, int first,
                             std::size_t members, Work work) {
    VirtualClock clock;
    ModelledDevice device(model, clock);
    const NetworkModel network = model.network.from_rank(static_cast<std::size_t>(first));
    const int rank = run.rank - first, ranks = static_cast<int>(members);
    DryRunCommunicator tensors(rank, ranks, network, clock, DryRunCommunicator::Memory::none);
    DryRunCommunicator control(rank, ranks, network, clock, DryRunCommunicator::Memory::host);
    std::map<std::string, DeviceSeconds> spent;
    DeviceSeconds before = device.spent();
    const auto read_nothing = [&](const BlockLoader& loader) {
        return BlockPart(device, run.model.layout, run.model.storage, loader.partition(),
                         static_cast<std::size_t>(rank));
    };
    const auto attribute_seconds = [&](const std::string& phase) {
        spent[phase] += device.spent();
        spent[phase] -= before;
        before = device.spent();
    };
    Rehearsal result = work(run, {.device = device,
                                  .time = clock,
                                  .tensors = tensors,
                                  .control = control,
                                  .embed = [](HiddenStates&) {},
                                  .read = read_nothing,
                                  .after_phase = attribute_seconds,
                                  .hidden_states = hidden_states});
    result.spent = std::move(spent);
    result.host_bytes = device.host_peak_bytes();
    return result;
}

Rehearsal on_real_device(const RehearsedRun& run, const NetworkModel& model, Device& device, const RehearsalData& data,
                         StoragePlace hidden_states, int first, std::size_t members, Work work) {
    RealClock clock;
    const NetworkModel network = model.from_rank(static_cast<std::size_t>(first));
    const int rank = run.rank - first, ranks = static_cast<int>(members);
    DryRunCommunicator tensors(rank, ranks, network, clock, DryRunCommunicator::Memory::device, &device);
    DryRunCommunicator control(rank, ranks, network, clock, DryRunCommunicator::Memory::host);
    const auto embed = [&](HiddenStates& x) {
        std::vector<std::int32_t> ids(x.samples().end * run.options.sequence_length);
        for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = data.ids[i % data.ids.size()];
        embed_samples(device, data.source, ids, x);
    };
    const auto read = [&](const BlockLoader& loader) { return loader.read(data.source, 0); };  // all have one shape
    return work(run, {.device = device,
                      .time = clock,
                      .tensors = tensors,
                      .control = control,
                      .embed = embed,
                      .read = read,
                      .after_phase = {},
                      .hidden_states = hidden_states});
}

}  // namespace

double Rehearsal::seconds() const {
    double total = 0;
    for (const auto& [phase, cost] : phases) total += cost.seconds;
    return total;
}

CommunicationLedger Rehearsal::communication() const {
    CommunicationLedger total;
    for (const auto& [phase, cost] : phases) total += cost.communication;
    return total;
}

Rehearsal rehearse(const RehearsedRun& run, const DeviceModel& model, StoragePlace hidden_states) {
    const std::vector<int>& ranks = place_of(run).group.ranks;
    return on_modelled_device(run, model, hidden_states, ranks.front(), ranks.size(), prune_block);
}

Rehearsal rehearse(const RehearsedRun& run, const NetworkModel& network, Device& device, const RehearsalData& data,
                   StoragePlace hidden_states) {
    const Place place = place_of(run);
    require(place.group.owner_of(run.block) == static_cast<int>(place.me), "a dry run plays the block's owner");
    return on_real_device(run, network, device, data, hidden_states, place.group.ranks.front(),
                          place.group.ranks.size(), prune_block);
}

Rehearsal rehearse_dense_front(const RehearsedRun& run, const DeviceModel& model, StoragePlace hidden_states) {
    return on_modelled_device(run, model, hidden_states, 0, run.topology.ranks(), pass_densely);
}

Rehearsal rehearse_dense_front(const RehearsedRun& run, const NetworkModel& network, Device& device,
                               const RehearsalData& data, StoragePlace hidden_states) {
    return on_real_device(run, network, device, data, hidden_states, 0, run.topology.ranks(), pass_densely);
}

}  // namespace espalier
