#pragma once
/// Models with the shapes of well-known ones and random weights, so that speed and memory can be measured without a
/// checkpoint: "synthetic:llama-2-7b", or with fewer blocks "synthetic:llama-2-70b:4".

#include "src/weights/model_source.h"

#include <cstddef>
#include <filesystem>
#include <string>

namespace espalier {

/// Values are functions of tensor and place alone: bell-shaped (the sum of four uniform numbers) with standard
/// deviation 0.02, norms of ones. Computed in integers and one float32 product, so every machine has the same bits.
class SyntheticSource final : public ModelSource {
  public:
    /// Throws InputError with the known names when `name` is none of them.
    explicit SyntheticSource(const std::string& name);

    /// Whether a name in the place of a model folder or a token file asks for something made up.
    static bool is_named(const std::filesystem::path& path) { return path.string().starts_with("synthetic:"); }

    std::filesystem::path path() const override { return name_; }
    void read_rows(std::size_t block, const RowSlice& rows, std::span<std::byte> destination) const override;
    void read_vectors(std::size_t block, std::span<std::byte> destination) const override;
    DType outer_dtype(OuterTensor) const override { return DType::bf16; }
    std::size_t outer_rows(OuterTensor tensor) const override;
    void read_outer_rows(OuterTensor tensor, std::size_t first, std::size_t rows,
                         std::span<std::byte> destination) const override;
    bool has_own_head() const override { return !config().tied_head; }
    std::string identity() const override { return name_; }

  private:
    std::string name_;
};

}  // namespace espalier
