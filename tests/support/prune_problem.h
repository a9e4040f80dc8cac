#pragma once
/// One random block with calibration samples, pruned by the program's own BlockPruner in any group of ranks.

#include "mpi/tensor_communicator.h"
#include "src/method/pass_types.h"
#include "src/prune/block_pruner.h"
#include "src/samples/sample_reader.h"
#include "tests/support/test_device.h"
#include "tests/support/tiny_model.h"

#include <algorithm>
#include <cstddef>
#include <map>
#include <numeric>
#include <string>
#include <vector>

namespace espalier::support {

/// What a block looks like after pruning, on the host.
struct PruneResult {
    std::vector<float> weights;
    std::vector<std::uint8_t> mask;
    std::vector<float> next_inputs;  ///< hidden states of all samples of the group, in sample order
    BlockReport report;
    std::map<std::string, PhaseCost> costs;  ///< of this rank, by phase
};

struct PruneProblem {
    ModelConfig config;
    BlockLayout layout;
    HostBlock block;
    std::vector<float> x;  ///< [samples * tokens, hidden]
    std::size_t samples, tokens;
    StoragePlace place = StoragePlace::device;  ///< of hidden states and dense outputs

    /// Widths that 8 divides and matrices of more than 64 rows, so that several ranks own a part.
    explicit PruneProblem(const std::string& family = "mistral", std::size_t sample_count = 12,
                          std::size_t token_count = 6)
        : config(parse_tiny_config(family, {{"hidden_size", 64}, {"intermediate_size", 160}})),
          layout(config),
          samples(sample_count),
          tokens(token_count) {
        Random random(42);
        block = random_block(random, layout);
        // Inputs as a trained model has them: a few channels are much larger than the others.
        std::vector<double> scales(config.hidden_size);
        for (double& scale : scales) scale = std::exp(random.normal());
        x = random.normals(samples * tokens * config.hidden_size);
        for (std::size_t i = 0; i < x.size(); ++i) x[i] *= static_cast<float>(scales[i % config.hidden_size]);
    }

    PruneOptions options(Method method) const {
        PruneOptions result;
        result.method = method;
        result.samples = samples;
        result.sequence_length = tokens;
        result.shards = 5;
        result.ro.samples = 6;
        result.ro.rounds = 2;
        result.ro.learning_rate = 1e-3;
        result.reconstruction.epochs = 2;
        return result;
    }

    /// Prunes as block `index` of one block group in `group`. Collective over it.
    PruneResult prune(const PruneOptions& options, Communicator& group, std::size_t index = 1) const {
        const auto device = make_test_device(1);
        const Topology topology(static_cast<std::size_t>(group.size()), 4, 1, samples, options.shards);
        const TensorCommunicator tensors(group, *device);
        const GroupContext context{.device = *device,
                                   .group = tensors.get(),
                                   .control = group,
                                   .topology = topology,
                                   .block_group = topology.groups()[0],
                                   .config = config,
                                   .layout = layout,
                                   .tokens = tokens};
        DecoderBlock decoder(*device, config,
                             PassShape{tokens, tokens * options.samples_of_pass(),
                                       pass_types(options, *device, DType::f32).passes, DType::f32});
        const RealClock time;
        PhaseClock clock(time, {&group, &tensors.get()});
        BlockPruner pruner(context, options, decoder, clock);
        BlockWeights weights = upload_block(*device, layout, block);
        HiddenStates states(*device, context.my_samples(), tokens, config.hidden_size, place);
        const std::size_t sample_size = tokens * config.hidden_size;
        for (std::size_t n = states.samples().begin; n < states.samples().end; ++n) {
            const Tensor sample =
                upload(*device, tokens, config.hidden_size, std::span(x).subspan(n * sample_size, sample_size));
            if (states.on_host())
                device->wait_for_copy(states.write_back(n, sample));
            else
                device->copy(sample, states.sample(n));
        }
        pruner.begin(states);
        const PrunedBlock pruned = pruner.prune(index, weights, states);
        PruneResult result{download(*device, weights.matrices.all()), download_bytes(*device, pruned.mask.all()), x,
                           pruned.report, clock.take()};
        SampleReader after(*device, states, all_samples_of(states));
        for (std::size_t n = states.samples().begin; n < states.samples().end; ++n) {
            device->copy_to_host(after.next(), result.next_inputs.data() + n * sample_size);
        }
        std::vector<std::size_t> offsets(static_cast<std::size_t>(group.size()) + 1, 0);
        for (std::size_t r = 0; r + 1 < offsets.size(); ++r) {
            offsets[r + 1] = topology.samples_of(topology.groups()[0], r).end * sample_size;
        }
        for (std::size_t r = 1; r < offsets.size(); ++r) offsets[r] = std::max(offsets[r], offsets[r - 1]);
        group.all_gather(std::span<float>(result.next_inputs), offsets);
        return result;
    }
    PruneResult prune_alone(const PruneOptions& options, std::size_t index = 1) const {
        const auto alone = make_single_communicator();
        return prune(options, *alone, index);
    }
};

}  // namespace espalier::support
