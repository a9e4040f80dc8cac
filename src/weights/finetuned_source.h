#pragma once
/// A finished run of fine-tuning as a model: the model that it began with, and what it has trained, put together row by
/// row as they are read.

#include "src/weights/finetune_manifest.h"
#include "src/weights/model_source.h"

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace espalier {

class FinetunedSource final : public ModelSource {
  public:
    /// Throws InputError when the run is not complete, or the model that it began with is not there or is another one.
    explicit FinetunedSource(const std::filesystem::path& path);
    FinetunedSource(const FinetunedSource&) = delete;
    FinetunedSource& operator=(const FinetunedSource&) = delete;

    const FinetuneManifest& manifest() const { return manifest_; }
    const RunFolder& run() const { return run_; }
    const ModelSource& base() const { return *base_; }
    /// Updates of low rank lie on zeros of the base, too: reading merges them, and the result is not sparse.
    bool is_dense() const { return train_ == "lora"; }
    bool keeps_zeros() const { return keeps_zeros_; }
    bool trains_norms() const { return trains_norms_; }
    /// From now on an update leaves zeros of the base what they are, whatever it was trained for.
    void keep_zeros() { keeps_zeros_ = true; }
    /// A of [rank, in] or B of [out, rank], or a gain: by its name in the block ("self_attn.q_proj.lora_A.weight");
    /// empty when it was not trained.
    std::vector<float> trained(std::size_t block, std::string_view name) const;

    std::filesystem::path path() const override { return run_.path(); }
    std::vector<std::filesystem::path> folders() const override;
    void verify_block(std::size_t block) const override;
    void verify_outer() const override;
    void read_rows(std::size_t block, const RowSlice& rows, std::span<std::byte> destination) const override;
    void read_vectors(std::size_t block, std::span<std::byte> destination) const override;
    DType outer_dtype(OuterTensor tensor) const override;
    std::size_t outer_rows(OuterTensor tensor) const override { return base_->outer_rows(tensor); }
    void read_outer_rows(OuterTensor tensor, std::size_t first, std::size_t rows,
                         std::span<std::byte> destination) const override;
    bool has_own_head() const override { return base_->has_own_head(); }
    std::string identity() const override;

  private:
    bool trains_final_norm() const { return manifest_.blocks.contains(config().blocks.size()); }
    /// rows += scale B A, but where zeros are kept and are one.
    void add_update(std::size_t block, const RowSlice& rows, std::vector<float>& values) const;

    RunFolder run_;
    FinetuneManifest manifest_;
    std::unique_ptr<ModelSource> base_;
    std::string train_;
    double scale_ = 0;
    std::size_t rank_ = 0;
    bool keeps_zeros_ = true, trains_norms_ = false;
};

}  // namespace espalier
