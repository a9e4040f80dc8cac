#include "src/blocks/block_writer.h"

#include "io/hdf5_handle.h"
#include "src/base/error.h"
#include "src/weights/mask_bits.h"
#include "src/weights/mask_check.h"

#include <chrono>
#include <utility>

namespace espalier {

namespace {

std::string mask_name(std::size_t block, const BlockLayout& layout, const StoredMatrix& matrix) {
    return layout.tensor_name(block, matrix.mask);
}

/// Tensors of the file over the memory of `block`; packed masks are kept alive by `packed`.
std::vector<FileTensor> list_tensors(const BlockToWrite& block, const BlockLayout& layout,
                                     std::vector<std::vector<std::byte>>& packed) {
    std::vector<FileTensor> tensors;
    std::size_t offset = 0;
    const auto add = [&](const std::string& name, DType dtype, std::vector<std::uint64_t> shape) {
        std::size_t bytes = bytes_of(dtype);
        for (const std::uint64_t dimension : shape) bytes *= static_cast<std::size_t>(dimension);
        tensors.push_back({layout.tensor_name(block.block, name), dtype, std::move(shape),
                           std::span<const std::byte>(block.tensors.bytes()).subspan(offset, bytes)});
        offset += bytes;
    };
    for (const StoredMatrix& matrix : layout.stored_matrices()) {
        add(matrix.name, block.storage.matrix_dtype, {matrix.rows, matrix.columns});
    }
    for (std::size_t v = 0; v < layout.vectors().size(); ++v) {
        add(layout.vectors()[v].name, block.storage.vector_dtypes[v], {layout.vectors()[v].size});
    }
    if (block.mask.empty()) return tensors;
    for (const StoredMatrix& matrix : layout.stored_matrices()) {
        packed.push_back(pack_mask(mask_bytes(block).subspan(matrix.offset, matrix.size()), matrix.columns));
        tensors.push_back({mask_name(block.block, layout, matrix),
                           DType::u8,
                           {matrix.rows, (matrix.columns + 7) / 8},
                           packed.back()});
    }
    return tensors;
}

}  // namespace

std::span<const std::uint8_t> mask_bytes(const BlockToWrite& block) {
    const std::span<const std::byte> bytes = block.mask.bytes();
    return {reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()};
}

void audit_block_file(const std::filesystem::path& file, const BlockToWrite& block, const BlockLayout& layout,
                      const PruningPattern& pattern, int threads) {
    const Hdf5Reader reader(file);
    std::vector<std::vector<std::byte>> packed;
    for (const FileTensor& tensor : list_tensors(block, layout, packed)) {
        if (!reader.holds(hdf5_path(tensor.name), tensor.data, threads)) {
            throw ResourceError(file.string() + ": " + hdf5_path(tensor.name) +
                                " does not read back as it was written; the disk or its file system is failing");
        }
    }
    if (block.mask.empty()) return;
    for (const StoredMatrix& matrix : layout.stored_matrices()) {
        const std::size_t element = bytes_of(block.storage.matrix_dtype);
        const std::string fault = check_pruned_matrix(
            mask_bytes(block).subspan(matrix.offset, matrix.size()),
            std::span<const std::byte>(block.tensors.bytes()).subspan(matrix.offset * element, matrix.size() * element),
            block.storage.matrix_dtype, matrix.columns, pattern, threads);
        if (!fault.empty()) {
            throw BugError("internal error: " + file.string() + ": " +
                           hdf5_path(mask_name(block.block, layout, matrix)) + ": " + fault);
        }
    }
}

BlockWriter::BlockWriter(const RunFolder& run, const BlockLayout& layout, const PruningPattern& pattern,
                         std::map<std::string, std::string> attributes, WriterShare share)
    : run_(run), layout_(layout), pattern_(pattern), attributes_(std::move(attributes)), share_(share) {}

BlockWriter::~BlockWriter() {
    for (const std::future<WrittenBlock>& pending : pending_) {
        if (pending.valid()) pending.wait();
    }
}

void BlockWriter::wait_for_room() {
    while (pending_.size() >= share_.blocks) {
        std::future<WrittenBlock> oldest = std::move(pending_.front());
        pending_.pop_front();
        written_.push_back(oldest.get());
    }
}

void BlockWriter::start(BlockToWrite block) {
    wait_for_room();
    pending_.push_back(std::async(std::launch::async, [this, shared = std::make_shared<BlockToWrite>(
                                                                 std::move(block))] { return write(*shared); }));
}

std::vector<WrittenBlock> BlockWriter::take_written(bool wait) {
    while (!pending_.empty() &&
           (wait || pending_.front().wait_for(std::chrono::seconds(0)) == std::future_status::ready)) {
        std::future<WrittenBlock> oldest = std::move(pending_.front());
        pending_.pop_front();
        written_.push_back(oldest.get());
    }
    return std::exchange(written_, {});
}

WrittenBlock BlockWriter::write(const BlockToWrite& block) const {
    std::vector<std::vector<std::byte>> packed;
    const std::vector<FileTensor> tensors = list_tensors(block, layout_, packed);
    const FileRecord record = run_.commit_block(
        block.block, tensors, attributes_,
        [&](const std::filesystem::path& file) { audit_block_file(file, block, layout_, pattern_, share_.threads); },
        share_.threads);
    return {block.block, {record, block.metrics}};
}

}  // namespace espalier
