#pragma once
/// What is kept of trained values from step to step: one rank's parts of vectors of all units, float32. They lie on the
/// device, or away from it, in page-locked host memory or in a file, and then only those of one unit are on the device
/// at a time.

#include "src/finetune/training_context.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace espalier {

/// Vectors of a unit. `gradient` is kept only where it has to wait for those of all units, `best_values` only where
/// there are held-out samples to judge by.
enum class TrainedState { values, first_moment, second_moment, gradient, best_values };
constexpr std::size_t trained_states = 5;

class StateStore {
  public:
    /// `sizes`: of this rank's part of each unit; `kept`: the states that outlive a step. Moments are zero at
    /// first. References outlive it. Throws ResourceError when they do not fit where
    /// context.states says.
    StateStore(const TrainingContext& context, std::vector<std::size_t> sizes, const std::vector<TrainedState>& kept);
    StateStore(const StateStore&) = delete;
    StateStore& operator=(const StateStore&) = delete;
    ~StateStore();

    /// Of what is kept away from the device.
    std::uint64_t bytes_away() const;
    bool keeps(TrainedState state) const { return kept_[index_of(state)]; }
    /// The state of a unit on the device, [1, size]: where it lies, or a buffer which the next take or place of that
    /// state takes for another unit. take() brings what is kept, place() leaves the buffer as it is. Not for
    /// best_values.
    TensorView take(std::size_t unit, TrainedState state) const;
    TensorView place(std::size_t unit, TrainedState state) const;
    /// What lies in take()'s or place()'s memory is kept.
    void put_back(std::size_t unit, TrainedState state);
    /// to [1, n] <- elements [first, first + n).
    void read(std::size_t unit, TrainedState state, std::size_t first, TensorView to) const;
    /// best_values <- values.
    void keep_best(std::size_t unit);

    /// In host memory. Waits for the device.
    std::vector<float> on_host(std::size_t unit, TrainedState state) const;
    void set(std::size_t unit, TrainedState state, std::span<const float> values);

  private:
    class Away;
    class HostMemory;
    class File;
    static std::size_t index_of(TrainedState state) { return static_cast<std::size_t>(state); }
    bool is_on_device(TrainedState state) const;
    std::uint64_t offset_of(std::size_t unit, TrainedState state) const;

    const TrainingContext& context_;
    std::vector<std::size_t> sizes_;
    std::array<bool, trained_states> kept_{};
    std::array<std::vector<Tensor>, trained_states> on_device_;  ///< by unit
    std::array<Tensor, trained_states> buffers_;                 ///< of the largest unit, for what is not on the device
    std::vector<std::vector<float>> best_;  ///< in host memory, when the others are on the device; empty at first
    std::unique_ptr<Away> away_;
    std::vector<std::uint64_t> offsets_;  ///< of units in it, in bytes, and of its end; empty without it
};

}  // namespace espalier
