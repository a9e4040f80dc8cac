// A plan has the memory of a GPU that a run has.
#include "src/plan/device_model.h"

#include "kernels/device.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

constexpr std::size_t gibi = std::size_t{1} << 30;

TEST(ReservedMemory, IsOneRule) {
    EXPECT_EQ(reserved_gpu_bytes(0), 0U);
    EXPECT_EQ(reserved_gpu_bytes(4 * gibi), gibi / 2) << "an eighth of little";
    EXPECT_EQ(reserved_gpu_bytes(16 * gibi), gibi);
    EXPECT_EQ(reserved_gpu_bytes(80 * gibi), 80 * gibi / 32) << "a thirty-second of much";
    for (std::size_t available = 0; available < 200 * gibi; available += gibi / 2) {
        // More memory never leaves less for tensors.
        EXPECT_LE(available - reserved_gpu_bytes(available),
                  available + gibi / 2 - reserved_gpu_bytes(available + gibi / 2));
    }
}

TEST(ReservedMemory, APlanAcceptsNothingThatARunRefuses) {
    for (const std::string& name : device_model_names()) {
        const DeviceModel model = device_model(name);
        if (!model.is_gpu) continue;
        EXPECT_EQ(model.reserved_bytes, reserved_gpu_bytes(model.memory_bytes)) << name;
    }
}

}  // namespace
}  // namespace espalier
