#include "src/plan/rehearsal.h"

#include "src/base/error.h"
#include "src/prune/block_loader.h"
#include "src/prune/block_pruner.h"
#include "src/prune/embedded_samples.h"
#include "src/prune/rounding_loss.h"

#include <algorithm>
#include <functional>

namespace espalier {

namespace {

/// Fills the hidden states, and reads the played rank's part of the block.
struct Data {
    std::function<void(HiddenStates&)> embed;
    std::function<BlockPart(const BlockLoader&)> read;
};

Rehearsal rehearse_block(const RehearsedRun& run, Device& device, const Clock& time, Communicator& tensors,
                         Communicator& control, const Data& data,
                         const std::function<void(const std::string&)>& after_phase) {
    const std::size_t blocks = std::max(run.ranks, run.config.blocks);
    const Topology topology(run.ranks, blocks, 1, run.options.samples, run.options.shards);
    const GroupContext context{
        device, tensors, control, topology, topology.groups()[0], run.config, run.layout, run.options.sequence_length};
    const PassTypes types = pass_types(run.options, device, run.storage.matrix_dtype);
    Rehearsal result;
    result.memory =
        plan_memory(memory_needs(run.options, run.config, run.layout, types, topology, static_cast<int>(run.rank)),
                    device.memory_budget());
    BlockWeights weights(device, run.layout, types.weights);
    DecoderBlock decoder(device, run.config, run.options.sequence_length, types.passes, types.widest);
    HiddenStates x(device, context.my_samples(), run.options.sequence_length, run.config.hidden_size,
                   result.memory.hidden_states);
    data.embed(x);
    const BlockLoader loader(device, run.layout, tensors);
    const BlockPart part = data.read(loader);
    device.synchronize();

    PhaseClock clock(time, {&tensors, &control});
    clock.after_mark(after_phase);
    BlockPruner pruner(context, run.options, decoder, clock);
    pruner.set_learning_rate(run.options.ro.learning_rate.value_or(3e-7));  // a search is the first block's alone
    const double flops_before = device.flops();
    static_cast<void>(control.all_gather_value(char{0}));  // as the ranks ask each other before a block whether to stop
    loader.load(run.storage, run.owner, part, weights);
    clock.mark("load");
    PrunedBlock pruned = pruner.prune(run.owner, weights, x);
    if (uses_regional_optimization(run.options.method)) {
        static_cast<void>(unchanged_weight_share(context, part, run.options.output_dtype, weights, pruned.mask));
        clock.mark("rounding_loss");
    }
    if (run.rank == run.owner) {
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
    VirtualClock clock;
    const std::size_t budget = model.memory_bytes - std::min(model.memory_bytes, model.reserved_bytes);
    ModelledDevice device(model, clock, budget);
    const int rank = static_cast<int>(run.rank), ranks = static_cast<int>(run.ranks);
    DryRunCommunicator tensors(rank, ranks, model.network, clock, DryRunCommunicator::Memory::none);
    DryRunCommunicator control(rank, ranks, model.network, clock, DryRunCommunicator::Memory::host);
    std::map<std::string, DeviceSeconds> spent;
    DeviceSeconds before = device.spent();
    const Data no_values{[](HiddenStates&) {},
                         [&](const BlockLoader& loader) {
                             return BlockPart(device, run.layout, run.storage, loader.partition(), run.rank);
                         }};
    Rehearsal result = rehearse_block(run, device, clock, tensors, control, no_values, [&](const std::string& phase) {
        spent[phase] += device.spent();
        spent[phase] -= before;
        before = device.spent();
    });
    result.spent = std::move(spent);
    return result;
}

Rehearsal rehearse(const RehearsedRun& run, const NetworkModel& network, Device& device, const ModelSource& source,
                   std::span<const std::int32_t> ids) {
    require(run.rank == run.owner, "a dry run plays the block's owner");
    RealClock clock;
    const int rank = static_cast<int>(run.rank), ranks = static_cast<int>(run.ranks);
    DryRunCommunicator tensors(rank, ranks, network, clock, DryRunCommunicator::Memory::device, &device);
    DryRunCommunicator control(rank, ranks, network, clock, DryRunCommunicator::Memory::host);
    const Data data{[&](HiddenStates& x) { embed_samples(device, source, ids, x); },
                    [&](const BlockLoader& loader) { return loader.read(source, 0); }};  // all have one shape
    return rehearse_block(run, device, clock, tensors, control, data, {});
}

}  // namespace espalier
