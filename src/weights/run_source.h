#pragma once
/// What a run has written, as a source: its committed blocks while it goes on, the whole model once it is complete.

#include "src/weights/manifest.h"
#include "src/weights/model_source.h"

#include <map>
#include <optional>
#include <string>
#include <string_view>

namespace espalier {

class Hdf5Reader;

/// The committed blocks of a run, finished or not. A block is read as the file that its record vouches for.
class CommittedBlocks final : public BlockSource {
  public:
    /// `run` and `layout` outlive it. All files have `storage`'s types, or reading throws InputError.
    CommittedBlocks(const RunFolder& run, const BlockLayout& layout, BlockStorage storage,
                    std::map<std::size_t, FileRecord> records);

    const BlockLayout& layout() const override { return layout_; }
    void read_rows(std::size_t block, const RowSlice& rows, std::span<std::byte> destination) const override;
    void read_vectors(std::size_t block, std::span<std::byte> destination) const override;
    void verify_block(std::size_t block) const override;

  private:
    /// The name of the dataset, once it is known to be of `dtype`.
    std::string dataset(const Hdf5Reader& file, std::size_t block, std::string_view name, DType dtype) const;

    const RunFolder& run_;
    const BlockLayout& layout_;
    std::map<std::size_t, FileRecord> records_;
};

class RunSource final : public ModelSource {
  public:
    /// Throws InputError when the run is not complete or its config.json is not the one that the manifest names.
    explicit RunSource(const std::filesystem::path& path);
    RunSource(const RunSource&) = delete;
    RunSource& operator=(const RunSource&) = delete;

    const Manifest& manifest() const { return manifest_; }
    const RunFolder& run() const { return run_; }

    std::filesystem::path path() const override { return run_.path(); }
    void verify_outer() const override;
    void verify_block(std::size_t block) const override { blocks_->verify_block(block); }
    void read_rows(std::size_t block, const RowSlice& rows, std::span<std::byte> destination) const override {
        blocks_->read_rows(block, rows, destination);
    }
    void read_vectors(std::size_t block, std::span<std::byte> destination) const override {
        blocks_->read_vectors(block, destination);
    }
    DType outer_dtype(OuterTensor tensor) const override;
    std::size_t outer_rows(OuterTensor tensor) const override;
    void read_outer_rows(OuterTensor tensor, std::size_t first, std::size_t rows,
                         std::span<std::byte> destination) const override;
    bool has_own_head() const override { return own_head_; }
    std::string identity() const override;

  private:
    std::string stored_path(OuterTensor tensor) const;
    const FileRecord& outer_record(const std::string& file) const;
    RunFolder run_;
    Manifest manifest_;
    std::optional<CommittedBlocks> blocks_;  ///< known once the manifest is
    bool own_head_ = false;
};

}  // namespace espalier
