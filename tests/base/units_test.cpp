#include "src/base/units.h"

#include "tests/support/expect.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

TEST(Units, Bytes) {
    EXPECT_EQ(format_bytes(0), "0 B");
    EXPECT_EQ(format_bytes(1023), "1023 B");
    EXPECT_EQ(format_bytes(1536), "1.5 KiB");
    EXPECT_EQ(format_bytes(1.5 * 1024 * 1024), "1.5 MiB");
    EXPECT_EQ(format_bytes(12.0 * 1024 * 1024 * 1024), "12.0 GiB");
    EXPECT_EQ(format_bytes(0x1p60), "1048576.0 TiB");
}

TEST(Units, BytesFromText) {
    EXPECT_EQ(parse_bytes("16GiB", "gpu-memory"), std::size_t{16} << 30);
    EXPECT_EQ(parse_bytes("1.5 GB", "gpu-memory"), 1500000000U);
    EXPECT_EQ(parse_bytes("512", "gpu-memory"), 512U);
    EXPECT_EQ(parse_bytes("7B", "gpu-memory"), 7U);
    for (const char* const text : {"", "GiB", "16 gib", "-1GiB", "0", "0.5B", "16GiBs", "nan", "inf", "1e30TiB"}) {
        support::expect_error(ExitStatus::input, {"--gpu-memory", "16GiB"},
                              [&] { static_cast<void>(parse_bytes(text, "gpu-memory")); });
    }
}

TEST(Units, Seconds) {
    EXPECT_EQ(format_device_time(0.4, "GPU"), "0.4 GPU seconds");
    EXPECT_EQ(format_device_time(720, "rank"), "12 rank minutes");
    EXPECT_EQ(format_device_time(11160, "GPU"), "3.1 GPU hours");
    EXPECT_EQ(format_device_time(3.6e7, "GPU"), "10000 GPU hours");
    EXPECT_EQ(format_seconds(0), "0 s");
    EXPECT_EQ(format_seconds(3.52e-5), "35 us");
    EXPECT_EQ(format_seconds(4.2e-4), "0.4 ms");
    EXPECT_EQ(format_seconds(0.00421), "4.2 ms");
    EXPECT_EQ(format_seconds(0.0631), "63 ms");
    EXPECT_EQ(format_seconds(0.0997), "0.1 s");
    EXPECT_EQ(format_seconds(0.84), "0.8 s");
    EXPECT_EQ(format_seconds(9.96), "10 s");
    EXPECT_EQ(format_seconds(59.4), "59 s");
    EXPECT_EQ(format_seconds(59.6), "1 min 00 s");
    EXPECT_EQ(format_seconds(185), "3 min 05 s");
    EXPECT_EQ(format_seconds(3599.7), "1 h 00 min");
    EXPECT_EQ(format_seconds(7620), "2 h 07 min");
}

TEST(Units, PeakOfThisProcessIsPlausible) {
    EXPECT_GT(peak_resident_bytes(), std::size_t{1} << 20);
}

}  // namespace
}  // namespace espalier
