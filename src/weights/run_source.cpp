#include "src/weights/run_source.h"

#include "io/checksum.h"
#include "io/file.h"
#include "io/hdf5_handle.h"
#include "src/base/error.h"

namespace espalier {

namespace {

std::string config_of_run(const std::filesystem::path& path) {
    return read_text(path / "config.json", config_limit);
}

BlockStorage storage_of_block_file(const RunFolder& run, const BlockLayout& layout) {
    const Hdf5Reader file(run.block_path(0));
    BlockStorage storage;
    storage.matrix_dtype = file.info(hdf5_path(layout.weight_name(0, LinearLayer{0}))).dtype;
    for (const VectorShape& vector : layout.vectors()) {
        storage.vector_dtypes.push_back(file.info(hdf5_path(layout.tensor_name(0, vector.name))).dtype);
    }
    return storage;
}

}  // namespace

CommittedBlocks::CommittedBlocks(const RunFolder& run, const BlockLayout& layout, BlockStorage storage,
                                 std::map<std::size_t, FileRecord> records)
    : run_(run), layout_(layout), records_(std::move(records)) {
    storage_ = std::move(storage);
}

std::string CommittedBlocks::dataset(const Hdf5Reader& file, std::size_t block, std::string_view name,
                                     DType dtype) const {
    std::string path = hdf5_path(layout_.tensor_name(block, name));
    if (file.info(path).dtype != dtype) {
        throw InputError(run_.block_path(block).string() + ": " + path + " is not " + std::string(name_of(dtype)));
    }
    return path;
}

void CommittedBlocks::read_rows(std::size_t block, const RowSlice& rows, std::span<std::byte> destination) const {
    const Hdf5Reader file(run_.block_path(block));
    const MatrixShape& matrix = layout_.matrix(rows.layer);
    const std::string name = layout_.stored_matrices()[matrix.stored].name;
    file.read_rows(dataset(file, block, name, storage_.matrix_dtype), matrix.stored_row + rows.row_begin, rows.rows(),
                   destination);
}

void CommittedBlocks::read_vectors(std::size_t block, std::span<std::byte> destination) const {
    const Hdf5Reader file(run_.block_path(block));
    std::size_t offset = 0;
    for (std::size_t v = 0; v < layout_.vectors().size(); ++v) {
        const VectorShape& vector = layout_.vectors()[v];
        const std::size_t bytes = vector.size * bytes_of(storage_.vector_dtypes[v]);
        file.read(dataset(file, block, vector.name, storage_.vector_dtypes[v]), destination.subspan(offset, bytes));
        offset += bytes;
    }
}

void CommittedBlocks::verify_block(std::size_t block) const {
    verify_file(run_, records_.at(block));
}

RunSource::RunSource(const std::filesystem::path& path)
    : ModelSource(config_of_run(path), (path / "config.json").string()), run_(path), manifest_(Manifest::read(run_)) {
    if (!manifest_.complete) {
        throw InputError(path.string() + " holds an unfinished run (" + std::to_string(manifest_.blocks.size()) +
                         " of " + std::to_string(config().blocks.size()) +
                         " blocks); repeat its prune command to finish it");
    }
    verify_file(run_, outer_record("config.json"));
    if (config().blocks.size() != manifest_.blocks_in_model) {
        throw InputError(path.string() + ": config.json has " + std::to_string(config().blocks.size()) +
                         " decoder blocks, the manifest " + std::to_string(manifest_.blocks_in_model));
    }
    storage_ = storage_of_block_file(run_, layout());
    std::map<std::size_t, FileRecord> records;
    for (const auto& [block, record] : manifest_.blocks) records.emplace(block, record.file);
    blocks_.emplace(run_, layout(), storage_, std::move(records));
    const Hdf5Reader outer(run_.path() / RunFolder::outer_file);
    own_head_ = outer.contains(hdf5_path(layout().outer_name(OuterTensor::head)));
}

const FileRecord& RunSource::outer_record(const std::string& file) const {
    for (const FileRecord& record : manifest_.outer_files) {
        if (record.file == file) return record;
    }
    throw InputError(run_.path().string() + ": the manifest does not name " + file);
}

void RunSource::verify_outer() const {
    verify_file(run_, outer_record(RunFolder::outer_file));
}

std::string RunSource::stored_path(OuterTensor tensor) const {
    return hdf5_path(layout().outer_name(tensor == OuterTensor::head && !own_head_ ? OuterTensor::embedding : tensor));
}

DType RunSource::outer_dtype(OuterTensor tensor) const {
    return Hdf5Reader(run_.path() / RunFolder::outer_file).info(stored_path(tensor)).dtype;
}

std::size_t RunSource::outer_rows(OuterTensor tensor) const {
    return static_cast<std::size_t>(
        Hdf5Reader(run_.path() / RunFolder::outer_file).info(stored_path(tensor)).shape.at(0));
}

void RunSource::read_outer_rows(OuterTensor tensor, std::size_t first, std::size_t rows,
                                std::span<std::byte> destination) const {
    Hdf5Reader(run_.path() / RunFolder::outer_file).read_rows(stored_path(tensor), first, rows, destination);
}

std::string RunSource::identity() const {
    std::string text = manifest_.model_identity + manifest_.options.dump();
    for (const auto& [index, record] : manifest_.blocks) text += record.file.xxh3;
    for (const char* const file : {"config.json", RunFolder::outer_file}) text += outer_record(file).xxh3;
    return sha256(text);
}

}  // namespace espalier
