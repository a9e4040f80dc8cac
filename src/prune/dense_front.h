#pragma once
/// Block groups start from dense hidden states. All ranks of the run pass the calibration samples through the dense
/// blocks together, each its own few, and where a group's blocks begin, its ranks get copies.

#include "mpi/communicator.h"
#include "mpi/topology.h"
#include "src/blocks/block_loader.h"
#include "src/prune/block_on_device.h"
#include "src/samples/hidden_states.h"

#include <functional>
#include <memory>
#include <vector>

namespace espalier {

/// Names the memory of the states that it passes on.
constexpr const char* states_for_later_groups = "dense hidden states for later groups";

class DenseFront {
  public:
    /// `states` are the embeddings of topology.dense_samples_of(this rank). References outlive it.
    DenseFront(Device& device, Communicator& world, const Topology& topology, HiddenStates states)
        : device_(device), world_(world), topology_(topology), states_(std::move(states)) {}

    /// All samples of this rank through one more dense block, of which `part` is what this rank has read; `mark` hears
    /// when it is loaded and when it is passed. Collective.
    void take(const BlockLoader& loader, const BlockStorage& stored, std::size_t block, const BlockPart& part,
              BlockOnDevice& on_device, const std::function<void(const char*)>& mark = {});
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
