#pragma once
/// Block groups start from dense hidden states. All ranks of the run pass the calibration samples through the dense
/// blocks together, each its own few, and where a group's blocks begin, its ranks get copies.

#include "mpi/communicator.h"
#include "mpi/topology.h"
#include "src/model/decoder_block.h"
#include "src/samples/hidden_states.h"

#include <memory>
#include <vector>

namespace espalier {

class DenseFront {
  public:
    /// `states` are the embeddings of topology.dense_samples_of(this rank). References outlive it.
    DenseFront(Device& device, Communicator& world, const Topology& topology, HiddenStates states)
        : device_(device), world_(world), topology_(topology), states_(std::move(states)) {}

    /// All samples of this rank through one more dense block. Local.
    void pass(DecoderBlock& decoder, const BlockWeights& weights);
    /// The samples of all ranks as they are now to the ranks of `group`, into `destination` on those; null on the
    /// others. Collective over the world.
    void hand_over(const BlockGroup& group, HiddenStates* destination);

  private:
    void send(TensorView state, int receiver);
    void receive(std::size_t sample, int sender, HiddenStates& destination);
    void keep(std::size_t sample, TensorView state, HiddenStates& destination);

    Device& device_;
    Communicator& world_;
    const Topology& topology_;
    HiddenStates states_;
    std::vector<std::unique_ptr<Exchange>> under_way_;  ///< between memory that nothing else uses until the end
};

}  // namespace espalier
