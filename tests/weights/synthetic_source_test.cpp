// Models that are made up: their shapes, values and names.
#include "src/weights/synthetic_source.h"

#include "tests/support/expect.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace espalier {
namespace {

using namespace support;

std::vector<float> widened(std::span<const std::byte> raw) {
    std::vector<float> values(raw.size() / 2);
    widen_to_float(DType::bf16, raw.data(), values.size(), values.data());
    return values;
}

std::vector<std::byte> block_of(const SyntheticSource& source, std::size_t block) {
    std::vector<std::byte> raw(source.storage().total_bytes(source.layout()));
    source.read_block(block, raw);
    return raw;
}

TEST(SyntheticSource, HasTheShapesOfItsNamesake) {
    struct Case {
        const char* name;
        std::size_t blocks, weights, vocabulary;
    };
    for (const auto& [name, blocks, weights, vocabulary] :
         {Case{"synthetic:llama-2-7b", 32, 202375168, 32000}, Case{"synthetic:llama-2-13b", 40, 317194240, 32000},
          Case{"synthetic:llama-2-70b", 80, 855638016, 32000}, Case{"synthetic:llama-3.1-8b", 32, 218103808, 128256},
          Case{"synthetic:mistral-7b", 32, 218103808, 32768}, Case{"synthetic:qwen2.5-72b", 80, 877658112, 152064},
          Case{"synthetic:llama-2-70b:4", 4, 855638016, 32000}}) {
        const SyntheticSource source(name);
        EXPECT_EQ(source.config().blocks.size(), blocks) << name;
        EXPECT_EQ(source.layout().weights(), weights) << name;
        EXPECT_EQ(source.outer_rows(OuterTensor::embedding), vocabulary) << name;
        EXPECT_EQ(source.identity(), name);
        EXPECT_TRUE(source.has_own_head());
    }
    EXPECT_TRUE(SyntheticSource("synthetic:qwen2.5-72b").config().blocks.front().qkv_bias);
}

TEST(SyntheticSource, RefusesOtherNames) {
    expect_error(ExitStatus::input, {"llama-2-7b", "mistral-7b", "synthetic:gpt-2"},
                 [] { SyntheticSource("synthetic:gpt-2"); });
    for (const char* const blocks : {"0", "81", "x", "", "4x", "-1"}) {
        expect_error(ExitStatus::input, {"from 1 to 80"},
                     [&] { SyntheticSource(std::string("synthetic:llama-2-70b:") + blocks); });
    }
}

TEST(SyntheticSource, ValuesAreBellShapedAndFunctionsOfTheirPlace) {
    const SyntheticSource source("synthetic:llama-tiny"), other("synthetic:llama-tiny:2");
    const std::vector<std::byte> raw = block_of(source, 1);
    EXPECT_EQ(raw, block_of(other, 1));
    EXPECT_NE(raw, block_of(source, 0));
    const std::vector<float> values = widened(std::span(raw).first(2 * source.layout().weights()));
    double sum = 0, squares = 0, largest = 0;
    for (const float value : values) {
        sum += value;
        squares += static_cast<double>(value) * value;
        largest = std::max(largest, std::fabs(static_cast<double>(value)));
    }
    const auto count = static_cast<double>(values.size());
    EXPECT_NEAR(sum / count, 0, 5 * 0.02 / std::sqrt(count));
    EXPECT_NEAR(std::sqrt(squares / count), 0.02, 0.0005);
    EXPECT_LT(largest, 0.0695);  // two uniform numbers' width, times 0.02 sqrt(3)
    // The bits themselves are part of the interface: measurements on other machines see the same model.
    EXPECT_EQ(std::to_integer<int>(raw[0]) | std::to_integer<int>(raw[1]) << 8, 0xBC1D) << "element 0";
}

TEST(SyntheticSource, OuterRowsDoNotDependOnTheirPanel) {
    const SyntheticSource source("synthetic:llama-tiny");
    const std::size_t row = source.outer_row_bytes(OuterTensor::embedding);
    std::vector<std::byte> whole(512 * row), part(3 * row), head(512 * row);
    source.read_outer_rows(OuterTensor::embedding, 0, 512, whole);
    source.read_outer_rows(OuterTensor::embedding, 77, 3, part);
    EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.begin() + static_cast<std::ptrdiff_t>(77 * row)));
    source.read_outer_rows(OuterTensor::head, 0, 512, head);
    EXPECT_NE(head, whole);
    std::vector<std::byte> norm(2 * source.config().hidden_size);
    source.read_outer_rows(OuterTensor::final_norm, 0, source.config().hidden_size, norm);
    for (const float value : widened(norm)) EXPECT_EQ(value, 1.0F);
}

}  // namespace
}  // namespace espalier
