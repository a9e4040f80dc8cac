#pragma once
/// What the parts of a fine-tuning run share on one rank.

#include "kernels/device.h"
#include "mpi/communicator.h"
#include "src/finetune/finetune_options.h"
#include "src/samples/sample_store.h"
#include "src/weights/model_source.h"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

namespace espalier {

/// Where weights that are not stepped lie: all of them on every device, or an equal share on each, gathered block by
/// block.
enum class WeightPlace { resident, shared };

/// Where values, moments and gradients of what is trained lie while they are not at work: on the device, in page-locked
/// host memory, or, of a CPU, in a file. Away from the device only those of whole matrices do: those of low rank are
/// small.
enum class StatePlace { device, host, file };

/// References live as long as the run.
struct TrainingContext {
    Device& device;
    Communicator& group;    ///< all ranks, for tensors of the device
    Communicator& control;  ///< the same ranks, for host memory
    const FinetuneOptions& options;
    const ModelSource& student;
    const ModelSource* teacher;         ///< null when the loss does not ask it
    bool teacher_shares_head = false;   ///< its head is the student's, value by value (have_same_outer)
    std::span<const std::int32_t> ids;  ///< [samples, sequence_length]
    WeightPlace weights = WeightPlace::resident;
    StoragePlace hidden_states = StoragePlace::device;
    StatePlace states = StatePlace::device;
    std::filesystem::path state_file = {};  ///< made, and gone at once, for StatePlace::file; each rank has its own

    std::size_t me() const { return static_cast<std::size_t>(group.rank()); }
    std::size_t ranks() const { return static_cast<std::size_t>(group.size()); }
    std::size_t blocks() const { return student.config().blocks.size(); }
    std::size_t hidden_size() const { return student.config().hidden_size; }
    DType compute_dtype() const { return device.compute_dtype(student.storage().matrix_dtype); }
};

}  // namespace espalier
