#pragma once
/// Brings the samples of each optimiser step to the ranks that compute them, one step ahead of the computation.

#include "src/blocks/group_context.h"
#include "src/samples/dense_outputs.h"
#include "src/samples/hidden_states.h"

#include <array>
#include <cstddef>
#include <memory>
#include <vector>

namespace espalier {

/// One sample of a mini-batch on the rank that computes it.
struct StepSample {
    TensorView x;            ///< input of the block
    TensorView kept_output;  ///< of f0(x), as DenseOutputs keeps it
};

/// Positions of a mini-batch of `batch` samples that each rank computes: contiguous runs on the first min(passes,
/// ranks) ranks, or everything on `only` when the state lives on one rank.
class StepAssignment {
  public:
    /// `at_once`: samples that go through the block together, on one rank.
    static StepAssignment spread(std::size_t ranks, std::size_t at_once = 1);
    static StepAssignment all_on(std::size_t ranks, std::size_t only);
    /// Ascending, ranks + 1 entries.
    std::vector<std::size_t> offsets(std::size_t batch) const;
    /// The most that `rank` computes of a step, when `samples` are cut into mini-batches of `batch` and a rest: a
    /// smaller step may give it more.
    std::size_t most_of(std::size_t rank, std::size_t batch, std::size_t samples) const;

  private:
    StepAssignment(std::size_t ranks, bool alone, std::size_t only, std::size_t at_once)
        : ranks_(ranks), alone_(alone), only_(only), at_once_(at_once) {}
    std::size_t ranks_;
    bool alone_;
    std::size_t only_, at_once_;
};

class DrawnSamples {
  public:
    /// `draws` in drawing order, cut into mini-batches of `batch` (the last may be smaller).
    DrawnSamples(const GroupContext& context, const HiddenStates& x, const DenseOutputs& dense_outputs,
                 std::vector<std::size_t> draws, std::size_t batch, StepAssignment assignment);

    std::size_t steps() const { return (draws_.size() + batch_ - 1) / batch_; }
    std::size_t size_of_step(std::size_t step) const;
    /// Where the samples of a step are computed: ranks + 1 ascending positions inside the mini-batch.
    std::vector<std::size_t> offsets_of_step(std::size_t step) const { return assignment_.offsets(size_of_step(step)); }
    /// This rank's samples of `step`, in position order; starts shipping those of the next step. Steps are taken in
    /// order by every rank, which makes it collective; the views are valid until the next step is taken.
    std::vector<StepSample> take(std::size_t step);

  private:
    struct Slot {
        std::vector<Tensor> x, outputs;  ///< of samples that other ranks or host memory hold
        std::size_t used = 0;
        std::uint64_t copy = 0;  ///< the last from host memory
        std::vector<StepSample> samples;
        std::unique_ptr<Exchange> exchange;
    };
    void start(std::size_t step);
    StepSample next_buffers(Slot& slot);
    /// A sample that this rank holds, where it lies or on its way from host memory.
    StepSample on_device(std::size_t sample, Slot& slot);

    GroupContext context_;
    const HiddenStates& x_;
    const DenseOutputs& dense_outputs_;
    std::vector<std::size_t> draws_;
    std::size_t batch_;
    StepAssignment assignment_;
    std::array<Slot, 2> slots_;
};

}  // namespace espalier
