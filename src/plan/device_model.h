#pragma once
/// How fast a device is, in the few numbers that a plan needs: measured by `espalier doctor --rates FILE`, or from a
/// table of GPU types.

#include "src/base/json.h"
#include "src/plan/network_model.h"

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

namespace espalier {

/// FLOP/s of matrix products and of attention, in one type of factors.
struct ProductRates {
    double linear = 0;           ///< y = x W^T, and the gradient of its input
    double weight_gradient = 0;  ///< without what consumes it
    double attention = 0;        ///< half of the T x T products counted
    double attention_backward = 0;
};

struct DeviceModel {
    std::string name;
    std::string origin;  ///< where the numbers come from
    bool is_gpu = true;
    std::size_t memory_bytes = 0;     ///< of the device
    std::size_t multiprocessors = 1;  ///< decides the size of gradient panels
    ProductRates sixteen_bit, tf32, float32;
    double memory_bandwidth = 1;   ///< bytes a second, read and written
    double masking_rate = 1e12;    ///< weights a second that are scored and masked N:M, unless memory is slower
    double host_link = 1;          ///< bytes a second between host and device, each way
    double operation_seconds = 0;  ///< what an operation costs beside its work: launch, and the tail of its last wave
    double file_bandwidth = 1e9;   ///< bytes a second that a rank reads or writes
    NetworkModel network;
    /// Device memory that the system, the libraries and their buffers keep: of a GPU reserved_gpu_bytes, as in a run.
    std::size_t reserved_bytes = 0;

    /// What tensors may take together. A CPU has what the host has: a run there has no budget.
    std::size_t tensor_bytes() const {
        if (!is_gpu) return std::numeric_limits<std::size_t>::max();
        return memory_bytes - std::min(memory_bytes, reserved_bytes);
    }

    Json to_json() const;
    /// Throws InputError naming the field.
    static DeviceModel from_json(const Json& json, const std::string& file);
};

/// "h100", "h200", "a100", …; throws InputError that lists the names.
DeviceModel device_model(std::string_view name);
std::vector<std::string> device_model_names();
/// Rates that `doctor --rates` wrote. Throws InputError.
DeviceModel read_device_model(const std::filesystem::path& file);

}  // namespace espalier
