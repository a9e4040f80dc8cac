#include "src/plan/rehearsal.h"

#include "src/base/error.h"
#include "src/blocks/block_loader.h"
#include "src/method/rounding_loss.h"
#include "src/prune/block_pruner.h"
#include "src/prune/dense_front.h"
#include "src/samples/embedded_samples.h"

#include <algorithm>
#include <functional>
#include <limits>

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

MemoryPlan memory_of(const RehearsedRun& run, const Device& device, const PassTypes& types) {
    return plan_memory(memory_needs(run.options, run.config, run.layout, types, run.topology, run.rank),
                       device.memory_budget());
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
};

Rehearsal prune_block(const RehearsedRun& run, const Stage& stage) {
    Device& device = stage.device;
    const Place place = place_of(run);
    const GroupContext context{device,      stage.tensors, stage.control, run.topology,
                               place.group, run.config,    run.layout,    run.options.sequence_length};
    const PassTypes types = pass_types(run.options, device, run.storage.matrix_dtype);
    Rehearsal result;
    result.memory = memory_of(run, device, types);
    const StoragePlace where = result.memory.hidden_states;
    const std::size_t tokens = run.options.sequence_length, hidden = run.config.hidden_size;
    BlockWeights weights(device, run.layout, types.weights);
    DecoderBlock decoder(device, run.config, tokens, types.passes, types.widest);
    HiddenStates x(device, context.my_samples(), tokens, hidden, where);
    const IndexRange kept = run.topology.rounds() > 1 ? run.topology.dense_samples_of(run.rank) : IndexRange{};
    const HiddenStates of_later_groups(device, kept, tokens, hidden, where);
    stage.embed(x);
    const BlockLoader loader(device, run.layout, stage.tensors);
    const BlockPart part = stage.read(loader);
    device.synchronize();

    PhaseClock clock(stage.time, {&stage.tensors, &stage.control});
    clock.after_mark(stage.after_phase);
    BlockPruner pruner(context, run.options, decoder, clock);
    pruner.set_learning_rate(run.options.ro.learning_rate.value_or(3e-7));  // a search is the first block's alone
    const double flops_before = device.flops();
    static_cast<void>(
        stage.control.all_gather_value(char{0}));  // as ranks ask each other before a block whether to stop
    loader.load(run.storage, run.block, part, weights);
    clock.mark("load");
    PrunedBlock pruned = pruner.prune(run.block, weights, x);
    if (uses_regional_optimization(run.options.method)) {
        static_cast<void>(unchanged_weight_share(context, part, run.options.output_dtype, weights, pruned.mask));
        clock.mark("rounding_loss");
    }
    if (place.group.owner_of(run.block) == static_cast<int>(place.me)) {
        const HostBuffer out(device, run.layout.weights() * bytes_of(run.options.output_dtype));
        const HostBuffer mask(device, run.layout.weights());
        device.convert(weights.matrices.all(), out.view(run.options.output_dtype, 0, 1, run.layout.weights()));
        device.copy(pruned.mask.all(), mask.view(DType::u8, 0, 1, run.layout.weights()));
        device.synchronize();
        clock.mark("hand_over");
    }
    result.flops = device.flops() - flops_before;
    result.peak_bytes = device.peak_bytes();
    result.phases = clock.take();
    return result;
}

Rehearsal pass_densely(const RehearsedRun& run, const Stage& stage) {
    Device& device = stage.device;
    const Place place = place_of(run);
    const PassTypes types = pass_types(run.options, device, run.storage.matrix_dtype);
    Rehearsal result;
    result.memory = memory_of(run, device, types);
    const auto make_states = [&](IndexRange samples) {
        return HiddenStates(device, samples, run.options.sequence_length, run.config.hidden_size,
                            result.memory.hidden_states);
    };
    BlockWeights weights(device, run.layout, types.weights);
    DecoderBlock decoder(device, run.config, run.options.sequence_length, types.passes, types.widest);
    HiddenStates own = make_states(run.topology.dense_samples_of(run.rank));
    stage.embed(own);
    DenseFront front(device, stage.tensors, run.topology, std::move(own));
    HiddenStates x = make_states(run.topology.samples_of(place.group, place.me));
    const BlockLoader loader(device, run.layout, stage.tensors);
    const BlockPart part = stage.read(loader);
    device.synchronize();

    PhaseClock clock(stage.time, {&stage.tensors, &stage.control});
    clock.after_mark(stage.after_phase);
    const double flops_before = device.flops();
    loader.load(run.storage, run.block, part, weights);
    clock.mark("load");
    front.pass(decoder, weights);
    device.synchronize();
    clock.mark("pass");
    front.hand_over(place.group, &x);
    device.synchronize();
    clock.mark("hand_over");
    result.flops = device.flops() - flops_before;
    result.peak_bytes = device.peak_bytes();
    result.phases = clock.take();
    return result;
}

using Work = Rehearsal (*)(const RehearsedRun&, const Stage&);

/// `first`: of the ranks that work together, `members` of them, among all.
Rehearsal on_modelled_device(const RehearsedRun& run, const DeviceModel& model, int first, std::size_t members,
                             Work work) {
    VirtualClock clock;
    // A CPU has what the host has: a run there has no budget.
    const std::size_t budget = model.is_gpu ? model.memory_bytes - std::min(model.memory_bytes, model.reserved_bytes)
                                            : std::numeric_limits<std::size_t>::max() / 2;
    ModelledDevice device(model, clock, budget);
    const NetworkModel network = model.network.from_rank(static_cast<std::size_t>(first));
    const int rank = run.rank - first, ranks = static_cast<int>(members);
    DryRunCommunicator tensors(rank, ranks, network, clock, DryRunCommunicator::Memory::none);
    DryRunCommunicator control(rank, ranks, network, clock, DryRunCommunicator::Memory::host);
    std::map<std::string, DeviceSeconds> spent;
    DeviceSeconds before = device.spent();
    Rehearsal result = work(run, {device, clock, tensors, control, [](HiddenStates&) {},
                                  [&](const BlockLoader& loader) {
                                      return BlockPart(device, run.layout, run.storage, loader.partition(),
                                                       static_cast<std::size_t>(rank));
                                  },
                                  [&](const std::string& phase) {
                                      spent[phase] += device.spent();
                                      spent[phase] -= before;
                                      before = device.spent();
                                  }});
    result.spent = std::move(spent);
    result.host_bytes = device.host_peak_bytes();
    return result;
}

Rehearsal on_real_device(const RehearsedRun& run, const NetworkModel& model, Device& device, const RehearsalData& data,
                         int first, std::size_t members, Work work) {
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
    return work(run, {device, clock, tensors, control, embed, read, {}});
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

Rehearsal rehearse(const RehearsedRun& run, const DeviceModel& model) {
    const std::vector<int>& ranks = place_of(run).group.ranks;
    return on_modelled_device(run, model, ranks.front(), ranks.size(), prune_block);
}

Rehearsal rehearse(const RehearsedRun& run, const NetworkModel& network, Device& device, const RehearsalData& data) {
    const Place place = place_of(run);
    require(place.group.owner_of(run.block) == static_cast<int>(place.me), "a dry run plays the block's owner");
    return on_real_device(run, network, device, data, place.group.ranks.front(), place.group.ranks.size(), prune_block);
}

Rehearsal rehearse_dense_front(const RehearsedRun& run, const DeviceModel& model) {
    return on_modelled_device(run, model, 0, run.topology.ranks(), pass_densely);
}

Rehearsal rehearse_dense_front(const RehearsedRun& run, const NetworkModel& network, Device& device,
                               const RehearsalData& data) {
    return on_real_device(run, network, device, data, 0, run.topology.ranks(), pass_densely);
}

}  // namespace espalier
