// Samples in host memory arrive in the order asked for, changes travel back, and dense outputs survive the way.
#include "src/samples/sample_reader.h"

#include "src/samples/dense_outputs.h"
#include "src/samples/hidden_states.h"
#include "tests/support/test_device.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

using namespace support;

constexpr std::size_t sample_tokens = 3, hidden = 40;

/// Every element of sample n is `offset` + n.
Tensor filled(Device& device, double offset, std::size_t n) {
    return upload(device, sample_tokens, hidden,
                  std::vector<float>(sample_tokens * hidden, static_cast<float>(offset + static_cast<double>(n))));
}

class SampleReaderTest : public testing::TestWithParam<StoragePlace> {
  protected:
    std::unique_ptr<Device> device_ = make_test_device();
    HiddenStates states_{*device_, {4, 13}, sample_tokens, hidden, GetParam()};

    SampleReaderTest() {
        for (std::size_t n = 4; n < 13; ++n) {
            const Tensor values = filled(*device_, 0.5, n);
            if (states_.on_host())
                device_->wait_for_copy(states_.write_back(n, values));
            else
                device_->copy(values, states_.sample(n));
        }
    }
    void expect_values(const std::vector<std::size_t>& order, double offset) {
        SampleReader reader(*device_, states_, order);
        for (const std::size_t n : order) {
            const TensorView sample = reader.next();
            EXPECT_EQ(download(*device_, sample),
                      std::vector<float>(sample_tokens * hidden, static_cast<float>(offset + static_cast<double>(n))))
                << n;
        }
    }
};
INSTANTIATE_TEST_SUITE_P(Places, SampleReaderTest, testing::Values(StoragePlace::device, StoragePlace::host),
                         [](const auto& info) {
                             return std::string(info.param == StoragePlace::device ? "device" : "host");
                         });

TEST_P(SampleReaderTest, AnyOrderWithRepetitions) {
    expect_values({4, 5, 6, 7, 8, 9, 10, 11, 12}, 0.5);
    expect_values({12, 4, 4, 9, 4, 12}, 0.5);
    expect_values({7}, 0.5);
    expect_values({}, 0.5);
}

TEST_P(SampleReaderTest, ChangesTravelBack) {
    {
        SampleReader reader(*device_, states_, all_samples_of(states_));
        for (std::size_t n = 4; n < 13; ++n) {
            const TensorView sample = reader.next();
            device_->add(filled(*device_, 100, 0), sample);
            states_.write_back(n, sample);
        }
    }
    expect_values({12, 11, 10, 9, 8, 7, 6, 5, 4}, 100.5);
}

TEST_P(SampleReaderTest, DenseOutputsComeBack) {
    for (const DType weights : {DType::f32, DType::bf16}) {
        DenseOutputs outputs(*device_, {4, 13}, sample_tokens, hidden, weights, GetParam());
        {
            SampleReader inputs(*device_, states_, all_samples_of(states_));
            for (std::size_t n = 4; n < 13; ++n) {
                const TensorView x = inputs.next();
                device_->copy(filled(*device_, 0.75, 2 * n), outputs.place_of(n));  // a change of n + 0.25: no rounding
                outputs.keep(n, x);
            }
        }
        SampleReader inputs(*device_, states_, all_samples_of(states_));
        SampleReader kept(*device_, outputs.kept(), all_samples_of(states_));
        for (std::size_t n = 4; n < 13; ++n) {
            const TensorView x = inputs.next();
            EXPECT_EQ(download(*device_, outputs.restored(kept.next(), x)),
                      std::vector<float>(sample_tokens * hidden, 0.75F + 2 * static_cast<float>(n)));
        }
    }
}

}  // namespace
}  // namespace espalier
