#include "src/prune/memory_plan.h"

#include "src/base/error.h"
#include "src/base/units.h"
#include "src/blocks/weight_partition.h"
#include "src/samples/drawn_samples.h"
#include "src/samples/sample_split.h"

#include <algorithm>
#include <numeric>

namespace espalier {

namespace {

constexpr std::size_t float_bytes = sizeof(float);

std::size_t activation_bytes(const MemoryNeeds& needs, bool backward) {
    const ModelConfig& c = needs.config;
    const std::size_t tokens = needs.options.sequence_length, wide = bytes_of(needs.types.widest);
    const std::size_t hidden = c.hidden_size, inner = c.intermediate_size;
    const std::size_t query = c.query_width(), key_value = c.key_value_width();
    std::size_t row = wide * (2 * hidden + 2 * query + 2 * key_value + 3 * inner) +
                      float_bytes * (hidden + c.query_heads + 2 + c.head_size);
    if (c.query_key_norm) row += wide * (query + key_value) + float_bytes * (c.query_heads + c.key_value_heads);
    if (backward) {
        row += wide * (inner + 2 * query + 2 * key_value) + float_bytes * hidden;
        if (needs.types.weights != DType::f32) row += 2 * hidden;
    }
    return tokens * row;
}

class Planner {
  public:
    Planner(const MemoryNeeds& needs, StoragePlace place)
        : needs_(needs),
          place_(place),
          weights_(needs.layout.weights()),
          sample_(needs.options.sequence_length * needs.config.hidden_size),
          partition_(WeightPartition::balanced(needs.layout, needs.ranks)) {
        for (std::size_t rank = 0; rank < needs.ranks; ++rank) {
            part_ = std::max(part_, partition_.size_of(rank));
            for (const LinearLayer layer : all_linear_layers) {
                const PartOffsets& offsets = partition_.offsets_in(layer);
                part_of_matrix_ = std::max(part_of_matrix_, offsets[rank + 1] - offsets[rank]);
            }
        }
    }

    std::vector<MemoryItem> dense_pass() const {
        std::vector<MemoryItem> items = always();
        if (!uses_regional_gradient(needs_.options.method)) return items;
        items.push_back({"sums of the regional gradient", float_bytes * weights_ * needs_.shards.accumulators});
        items.push_back({"gradient panel", panel_bytes()});
        return items;
    }
    /// The gradient's sums come together on the ranks that own their rows, one matrix at a time.
    std::vector<MemoryItem> gradient_reduction() const {
        std::vector<MemoryItem> items = always();
        if (!uses_regional_gradient(needs_.options.method)) return items;
        const bool alone = uses_regional_optimization(needs_.options.method) && needs_.options.ro.batch == 1;
        std::size_t largest = 0;
        for (const MatrixShape& matrix : needs_.layout.matrices()) largest = std::max(largest, matrix.size());
        // A whole matrix is added up in the sum itself.
        const std::size_t beside =
            alone ? needs_.shards.arriving * largest : parts_beside(needs_.shards) * part_of_matrix_;
        items.push_back({"sums of the regional gradient", float_bytes * weights_ * needs_.shards.nodes});
        items.push_back({"regional gradient", float_bytes * (alone ? weights_ : part_)});
        items.push_back({"sums of other ranks", float_bytes * beside});
        return items;
    }
    std::vector<MemoryItem> dense_front() const {
        std::vector<MemoryItem> items = always();
        if (place_ == StoragePlace::host || needs_.keeps_dense) return items;
        // Before there are dense outputs.
        const std::size_t front = float_bytes * needs_.dense_samples, outputs = kept_bytes() * needs_.samples;
        items.push_back({"dense hidden states for later groups", (front - std::min(front, outputs)) * sample_});
        return items;
    }
    std::vector<MemoryItem> sparsegpt() const {
        std::vector<MemoryItem> items = always();
        if (needs_.options.method != Method::sparsegpt) return items;
        std::size_t width = 0;
        for (const MatrixShape& matrix : needs_.layout.matrices()) width = std::max(width, matrix.columns);
        // While it is summed the tree's partial sums, later the float64 copy that is factored and its work space.
        const std::size_t beside = std::max(float_bytes * needs_.shards.accumulators, 2 * sizeof(double));
        items.push_back({"Gram matrix", (float_bytes + beside) * width * width});
        const std::size_t part = (width + needs_.ranks - 1) / needs_.ranks * width;
        items.push_back({"sums of other ranks", float_bytes * parts_beside(needs_.shards) * part});
        return items;
    }
    std::vector<MemoryItem> optimisation() const {
        std::vector<MemoryItem> items = always();
        if (!uses_regional_optimization(needs_.options.method)) return items;
        const RegionalOptimizationOptions& ro = needs_.options.ro;
        const bool alone = ro.batch == 1;  // the whole state lies on the block's owner
        const std::size_t part = alone ? weights_ : part_;
        if (uses_regional_gradient(needs_.options.method)) items.push_back({"regional gradient", float_bytes * part});
        items.push_back({"RMSprop's averages", float_bytes * part});
        if (needs_.types.sixteen_bit_passes) {
            items.push_back({"float32 masters", float_bytes * part});
        } else if (needs_.types.weights != DType::f32) {
            items.push_back({"float32 weights", float_bytes * weights_});
        }
        items.push_back({"first mask", weights_});
        items.push_back({"gradient panel", panel_bytes() + transposed_bytes()});
        if (!alone) {
            const MiniBatchSums sums = mini_batch_sums();
            items.push_back({"sums of a mini-batch", float_bytes * (sums.accumulators * weights_ + part_)});
            items.push_back({"sums of other ranks", float_bytes * sums.parts * part_of_matrix_});
        }
        if (!ro.learning_rate) {
            items.push_back({"dense weights during the search", bytes_of(needs_.types.weights) * weights_});
        }
        const std::size_t arriving = place_ == StoragePlace::host || needs_.ranks > 1 ? 2 * ro.batch : 0;
        items.push_back({"samples of two steps", arriving * sample_ * (float_bytes + kept_bytes())});
        return items;
    }

  private:
    /// What a reduction holds beside the sums of the rank itself, in parts.
    std::size_t parts_beside(const OrderedSumBuffers& buffers) const {
        return needs_.ranks > 1 ? buffers.arriving + buffers.nodes : 0;
    }
    struct MiniBatchSums {
        std::size_t accumulators = 0;  ///< of all matrices
        std::size_t parts = 0;         ///< of one matrix
    };
    /// At most, on any rank: its place in a block group changes from round to round.
    MiniBatchSums mini_batch_sums() const {
        const RegionalOptimizationOptions& ro = needs_.options.ro;
        const std::size_t samples = needs_.options.samples;
        std::vector<std::size_t> populations = {samples};
        // The search leaves some out.
        if (!ro.learning_rate) populations.push_back(split_samples(samples).training.size());
        MiniBatchSums most;
        for (const std::size_t population : populations) {
            const std::size_t count = std::min(ro.samples, population);
            // Ranks after those with samples are all alike.
            for (std::size_t rank = 0; rank < std::min(needs_.ranks, ro.batch + 1); ++rank) {
                std::size_t accumulators = 0;
                // The last of a round may be smaller and has sums of its own.
                for (const std::size_t size : {count < ro.batch ? 0 : ro.batch, count % ro.batch}) {
                    const OrderedSumBuffers buffers =
                        buffers_of_sum(StepAssignment::spread(needs_.ranks).offsets(size), rank);
                    accumulators += buffers.accumulators;
                    // One matrix is on its way while another is added up and stepped.
                    most.parts = std::max(most.parts, parts_beside(buffers) + buffers.arriving);
                }
                most.accumulators = std::max(most.accumulators, accumulators);
            }
        }
        return most;
    }
    std::size_t kept_bytes() const { return needs_.types.weights == DType::f32 ? float_bytes : 2; }
    std::size_t panel_bytes() const {
        constexpr std::size_t usual = std::size_t{48} << 20, fewest_rows = 128;
        std::size_t largest = 0, longest_row = 0;
        for (const MatrixShape& matrix : needs_.layout.matrices()) {
            largest = std::max(largest, float_bytes * matrix.size());
            longest_row = std::max(longest_row, float_bytes * matrix.columns);
        }
        return std::min(largest, std::max(usual, fewest_rows * longest_row));
    }
    std::size_t transposed_bytes() const {
        if (needs_.types.widest != DType::f32) return 0;
        return float_bytes * needs_.options.sequence_length *
               (needs_.config.intermediate_size + needs_.config.hidden_size);
    }
    std::vector<MemoryItem> always() const {
        const bool backward =
            uses_regional_gradient(needs_.options.method) || uses_regional_optimization(needs_.options.method);
        std::vector<MemoryItem> items = {{"weights", bytes_of(needs_.types.weights) * weights_}, {"mask", weights_}};
        items.push_back({"activations of a sample", activation_bytes(needs_, backward)});
        items.push_back({"outputs of a sample", 3 * float_bytes * sample_});
        items.push_back({"input norms", 2 * float_bytes * needs_.options.samples * needs_.layout.total_input_width()});
        if (place_ == StoragePlace::device) {
            items.push_back({"hidden states", float_bytes * needs_.samples * sample_});
            if (needs_.keeps_dense) {
                items.push_back({"dense hidden states for later groups", float_bytes * needs_.dense_samples * sample_});
            }
            items.push_back({"dense outputs", kept_bytes() * needs_.samples * sample_});
        } else {
            items.push_back({"hidden states on their way", (3 * float_bytes + 5 * kept_bytes()) * sample_});
        }
        return items;
    }

    const MemoryNeeds& needs_;
    StoragePlace place_;
    std::size_t weights_, sample_;
    WeightPartition partition_;
    std::size_t part_ = 0, part_of_matrix_ = 0;  ///< the largest of a rank: of all matrices, of one
};

MemoryPlan plan_for(const MemoryNeeds& needs, StoragePlace place) {
    const Planner planner(needs, place);
    MemoryPlan largest{place, planner.dense_pass()};
    for (std::vector<MemoryItem> items :
         {planner.gradient_reduction(), planner.dense_front(), planner.sparsegpt(), planner.optimisation()}) {
        MemoryPlan plan{place, std::move(items)};
        if (plan.total() > largest.total()) largest = std::move(plan);
    }
    return largest;
}

std::string readable(std::size_t bytes) {
    return format_bytes(static_cast<double>(bytes));
}

}  // namespace

MemoryNeeds memory_needs(const PruneOptions& options, const ModelConfig& config, const BlockLayout& layout,
                         const PassTypes& types, const Topology& topology, int rank) {
    MemoryNeeds needs{options, config, layout, types};
    for (std::size_t round = 0; round < topology.rounds(); ++round) {
        const std::optional<std::size_t> g = topology.group_of(rank, round);
        if (!g) continue;
        const BlockGroup& group = topology.groups()[*g];
        const auto place = std::find(group.ranks.begin(), group.ranks.end(), rank);
        const auto me = static_cast<std::size_t>(place - group.ranks.begin());
        needs.samples = std::max(needs.samples, topology.samples_of(group, me).size());
        const OrderedSumBuffers sums = buffers_of_sum(topology.shard_offsets(group), me);
        needs.shards.accumulators = std::max(needs.shards.accumulators, sums.accumulators);
        needs.shards.nodes = std::max(needs.shards.nodes, sums.nodes);
        needs.shards.arriving = std::max(needs.shards.arriving, sums.arriving);
        needs.ranks = group.ranks.size();
    }
    if (topology.groups().size() > 1) needs.dense_samples = topology.dense_samples_of(rank).size();
    needs.keeps_dense = topology.rounds() > 1;
    return needs;
}

std::size_t MemoryPlan::total() const {
    return std::accumulate(items.begin(), items.end(), std::size_t{0},
                           [](std::size_t sum, const MemoryItem& item) { return sum + item.bytes; });
}

std::string MemoryPlan::text() const {
    std::vector<MemoryItem> sorted = items;
    std::stable_sort(sorted.begin(), sorted.end(),
                     [](const MemoryItem& a, const MemoryItem& b) { return a.bytes > b.bytes; });
    std::string text;
    for (const MemoryItem& item : sorted) {
        if (item.bytes > 0) text += (text.empty() ? "" : ", ") + item.name + " " + readable(item.bytes);
    }
    return text;
}

MemoryPlan plan_memory(const MemoryNeeds& needs, std::size_t budget) {
    MemoryPlan plan = plan_for(needs, StoragePlace::device);
    if (plan.total() <= budget) return plan;
    plan = plan_for(needs, StoragePlace::host);
    if (plan.total() <= budget) return plan;
    throw ResourceError("the GPU's " + readable(budget) + " do not hold the " + readable(plan.total()) +
                        " that this run needs even with its hidden states in host memory (" + plan.text() +
                        "); use more ranks with --ro-batch, fewer ranks in each of more --block-groups, a shorter "
                        "sequence, or a larger --gpu-memory");
}

}  // namespace espalier
