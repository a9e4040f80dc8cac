#include "src/model/weight_sizes.h"

#include "kernels/device_numbers.h"

#include <cmath>
#include <cstddef>

namespace espalier {

std::vector<double> sizes_of_nonzero(Device& device, std::span<const TensorView> tensors, TensorView scratch) {
    const DeviceSums squares(device, tensors.size());
    const DeviceCounters zeros(device, tensors.size());
    for (std::size_t i = 0; i < tensors.size(); ++i) {
        TensorView floats = tensors[i];
        if (floats.dtype != DType::f32) {
            require(floats.size() <= scratch.size(), "scratch of the largest tensor");
            floats = {scratch.data, DType::f32, tensors[i].rows, tensors[i].columns};
            device.convert(tensors[i], floats);
        }
        device.square_sum(floats, squares.at(i));
        device.count_zeros(tensors[i], zeros.at(i));
    }
    const std::vector<double> sums = squares.read();
    const std::vector<std::uint64_t> counts = zeros.read();
    std::vector<double> sizes;
    for (std::size_t i = 0; i < tensors.size(); ++i) {
        const std::size_t nonzero = tensors[i].size() - static_cast<std::size_t>(counts[i]);
        sizes.push_back(nonzero == 0 ? 0 : std::sqrt(sums[i] / static_cast<double>(nonzero)));
    }
    return sizes;
}

}  // namespace espalier
