#pragma once
/// A Hugging Face folder as a ModelSource.

#include "io/checkpoint_folder.h"
#include "src/weights/model_source.h"

namespace espalier {

/// Buffers that old checkpoints stored and that carry nothing: not read, not exported.
bool is_unused_buffer(const std::string& tensor);

class CheckpointSource final : public ModelSource {
  public:
    /// Checks that the folder holds exactly the tensors that its config.json implies, with the right shapes and with
    /// element types that we compute on. Throws InputError with both facts when they disagree. A model's folder in the
    /// hub's cache stands for its snapshot. Where model.safetensors lies beside an index and its shards, those that fit
    /// config.json are taken; when both do, the single file, as transformers does.
    explicit CheckpointSource(const std::filesystem::path& folder);

    const CheckpointFolder& folder() const { return folder_; }

    std::filesystem::path path() const override { return folder_.folder(); }
    void read_rows(std::size_t block, const RowSlice& rows, std::span<std::byte> destination) const override;
    void read_vectors(std::size_t block, std::span<std::byte> destination) const override;
    DType outer_dtype(OuterTensor tensor) const override;
    std::size_t outer_rows(OuterTensor tensor) const override;
    void read_outer_rows(OuterTensor tensor, std::size_t first, std::size_t rows,
                         std::span<std::byte> destination) const override;
    bool has_own_head() const override { return own_head_; }
    std::string identity() const override { return folder_.identity(); }

  private:
    explicit CheckpointSource(CheckpointFolder folder);
    static CheckpointSource open(const std::filesystem::path& folder);
    static CheckpointSource choose(const std::filesystem::path& folder);
    void check_shape(const std::string& name, const std::vector<std::uint64_t>& expected) const;
    void check_block(std::size_t block);
    void check_outer();
    void refuse_unexpected() const;
    std::string stored_name(OuterTensor tensor) const;

    CheckpointFolder folder_;
    bool own_head_ = false;
};

}  // namespace espalier
