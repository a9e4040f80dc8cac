#include "src/base/tensor.h"

#include "tests/support/expect.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

TEST(TensorView, RowsAndShapes) {
    std::byte memory[48];
    const TensorView view{memory, DType::bf16, 4, 6};
    EXPECT_EQ(view.size(), 24U);
    EXPECT_EQ(view.bytes(), 48U);
    const TensorView rows = view.row_range(1, 3);
    EXPECT_EQ(rows.data, memory + 12);
    EXPECT_EQ(rows.rows, 2U);
    EXPECT_EQ(rows.columns, 6U);
    EXPECT_EQ(view.row_range(4, 4).rows, 0U);
    EXPECT_EQ(view.reshaped(3, 8).columns, 8U);
    EXPECT_TRUE(TensorView{}.empty());
    EXPECT_FALSE(view.empty());
}

TEST(TensorView, ContractsAreChecked) {
    std::byte memory[16];
    const TensorView view{memory, DType::f32, 2, 2};
    support::expect_error(ExitStatus::bug, {"row range"}, [&] { static_cast<void>(view.row_range(1, 3)); });
    support::expect_error(ExitStatus::bug, {"row range"}, [&] { static_cast<void>(view.row_range(2, 1)); });
    support::expect_error(ExitStatus::bug, {"number of elements"}, [&] { static_cast<void>(view.reshaped(3, 1)); });
    support::expect_error(ExitStatus::bug, {"uint8"}, [&] { static_cast<void>(view.mask_bytes()); });
    const TensorView mask{memory, DType::u8, 2, 2};
    support::expect_error(ExitStatus::bug, {"float32"}, [&] { static_cast<void>(mask.floats()); });
}

}  // namespace
}  // namespace espalier
