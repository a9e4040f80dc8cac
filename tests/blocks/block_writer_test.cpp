// Block files that are audited before they get their name.
#include "src/blocks/block_writer.h"

#include "io/hdf5_handle.h"
#include "src/weights/mask_bits.h"
#include "src/weights/run_source.h"
#include "tests/support/expect.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/tiny_model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace espalier {
namespace {

using namespace support;

const PruningPattern two_of_four = {2, 4, 0.5};

class BlockWriterTest : public testing::Test {
  protected:
    TemporaryFolder folder_;
    RunFolder run_{folder_.path() / "run"};
    ModelConfig config_ = parse_tiny_config("qwen3");
    BlockLayout layout_{config_};
    std::unique_ptr<Device> device_ = make_cpu_device(1);

    BlockWriterTest() { run_.prepare("{}"); }

    /// A block whose first two weights of every group are removed.
    BlockToWrite block(std::size_t index, DType dtype) {
        Random random(index + 1);
        BlockToWrite result;
        result.block = index;
        result.storage = {dtype, std::vector<DType>(layout_.vectors().size(), DType::f32)};
        result.metrics = {{"block", index}};
        std::vector<float> weights = random.normals(layout_.weights());
        result.mask = HostBuffer(*device_, weights.size());
        for (std::size_t i = 0; i < weights.size(); ++i) {
            result.mask.bytes()[i] = std::byte{i % 4 >= 2};
            if (i % 4 < 2) weights[i] = 0;
        }
        result.tensors = HostBuffer(*device_, result.storage.total_bytes(layout_));
        const std::span<std::byte> tensors = result.tensors.bytes();
        round_from_float(dtype, weights.data(), weights.size(), tensors.data());
        for (std::size_t i = result.storage.matrix_bytes(layout_); i < tensors.size(); ++i) {
            tensors[i] = static_cast<std::byte>(random.bits());
        }
        return result;
    }
};

TEST_F(BlockWriterTest, BlocksReadBackBitForBit) {
    for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
        BlockWriter writer(run_, layout_, two_of_four, {{"method", "wanda"}});
        for (std::size_t index = 0; index < 3; ++index) writer.start(block(index, dtype));
        const std::vector<WrittenBlock> written = writer.take_written(true);
        ASSERT_EQ(written.size(), 3U);
        EXPECT_TRUE(writer.take_written(true).empty());
        for (std::size_t index = 0; index < 3; ++index) {
            EXPECT_EQ(written[index].block, index);
            EXPECT_EQ(written[index].record.metrics["block"], index);
            const BlockToWrite expected = block(index, dtype);
            std::vector<std::byte> back(expected.tensors.bytes().size());
            const CommittedBlocks committed(run_, layout_, expected.storage, {{index, written[index].record.file}});
            committed.read_block(index, back);
            EXPECT_TRUE(std::ranges::equal(back, expected.tensors.bytes())) << name_of(dtype);
            const Hdf5Reader reader(run_.block_path(index));
            EXPECT_EQ(reader.attribute("/", "method"), "wanda");
            const std::string mask = hdf5_path(layout_.tensor_name(index, "mlp.down_proj.mask"));
            std::vector<std::byte> packed(16 * 3);
            reader.read(mask, packed);
            EXPECT_EQ(unpack_mask(packed, 16, 24)[2], 1);
            EXPECT_EQ(unpack_mask(packed, 16, 24)[0], 0);
        }
    }
}

TEST_F(BlockWriterTest, AFileThatItsRecordDoesNotVouchForIsNotRead) {
    BlockWriter writer(run_, layout_, two_of_four, {});
    writer.start(block(0, DType::f32));
    const FileRecord record = writer.take_written(true)[0].record.file;
    writer.start(block(1, DType::f32));
    static_cast<void>(writer.take_written(true));
    const BlockToWrite expected = block(0, DType::f32);
    std::vector<std::byte> back(expected.tensors.bytes().size());
    FileRecord other = record;
    other.xxh3.back() = other.xxh3.back() == '0' ? '1' : '0';
    expect_input_error({"00000.h5", "manifest"}, [&] {
        CommittedBlocks(run_, layout_, expected.storage, {{0, other}}).read_block(0, back);
    });
    std::filesystem::copy_file(run_.block_path(1), run_.block_path(0),
                               std::filesystem::copy_options::overwrite_existing);
    expect_input_error({"00000.h5", "manifest"}, [&] {
        CommittedBlocks(run_, layout_, expected.storage, {{0, record}}).read_block(0, back);
    });
}

TEST_F(BlockWriterTest, CopiedBlocksHaveNoMasks) {
    BlockToWrite copied = block(1, DType::f32);
    copied.mask = HostBuffer();
    copied.tensors.bytes()[0] = std::byte{1};  // not a zero, and nobody minds
    BlockWriter writer(run_, layout_, two_of_four, {});
    writer.start(std::move(copied));
    EXPECT_EQ(writer.take_written(true).size(), 1U);
    EXPECT_FALSE(Hdf5Reader(run_.block_path(1)).contains(hdf5_path(layout_.tensor_name(1, "mlp.down_proj.mask"))));
}

TEST_F(BlockWriterTest, AFaultyBlockIsNotCommitted) {
    BlockToWrite faulty = block(2, DType::f32);
    faulty.mask.bytes()[0] = std::byte{1};  // one weight too many in the first group
    {
        BlockWriter writer(run_, layout_, two_of_four, {});
        writer.start(std::move(faulty));
        expect_error(ExitStatus::bug, {"q_proj/mask", "row 0, column 0", "removes 1"},
                     [&] { static_cast<void>(writer.take_written(true)); });
    }
    EXPECT_FALSE(std::filesystem::exists(run_.block_path(2)));
    faulty = block(2, DType::f32);
    const float value = 1e-20F;
    std::memcpy(faulty.tensors.bytes().data() + 4 * 4, &value, 4);
    BlockWriter writer(run_, layout_, two_of_four, {});
    writer.start(std::move(faulty));
    expect_error(ExitStatus::bug, {"row 0, column 4", "+0.0"}, [&] { static_cast<void>(writer.take_written(true)); });
}

TEST_F(BlockWriterTest, AuditNoticesWhatTheDiskChanged) {
    BlockWriter writer(run_, layout_, two_of_four, {});
    writer.start(block(0, DType::f32));
    static_cast<void>(writer.take_written(true));
    audit_block_file(run_.block_path(0), block(0, DType::f32), layout_, two_of_four);
    BlockToWrite other = block(0, DType::f32);
    other.tensors.bytes().back() ^= std::byte{1};
    expect_error(ExitStatus::resources, {"00000.h5", "read back"},
                 [&] { audit_block_file(run_.block_path(0), other, layout_, two_of_four); });
}

}  // namespace
}  // namespace espalier
