#pragma once
/// A completed run folder as a ModelSource, and the reading of single committed blocks while a run goes on.

#include "io/run_folder.h"
#include "src/weights/model_source.h"

namespace espalier {

/// Reads one committed block file into `storage` form. Throws InputError naming file and dataset, also when the file is
/// not the one that `record` vouches for.
void read_committed_block(const RunFolder& run, std::size_t block, const FileRecord& record, const BlockLayout& layout,
                          const BlockStorage& storage, std::span<std::byte> destination);

class RunSource final : public ModelSource {
  public:
    /// Throws InputError when the run is not complete or its config.json is not the one that the manifest names.
    explicit RunSource(const std::filesystem::path& path);

    const Manifest& manifest() const { return manifest_; }
    const RunFolder& run() const { return run_; }

    /// Throws InputError when a block file is not the one that the manifest names.
    void verify_block(std::size_t block) const;
    void verify_outer() const override;
    void read_block(std::size_t block, std::span<std::byte> destination) const override;
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
    bool own_head_ = false;
};

}  // namespace espalier
