#pragma once
/// A model of which only the shapes are known, for rehearsals.

#include "src/weights/model_source.h"

namespace espalier {

/// Everything but values is as in another source; what is read is left as it is.
class UnreadSource : public ModelSource {
  public:
    /// `shapes` outlives it.
    explicit UnreadSource(const ModelSource& shapes)
        : ModelSource(shapes.config_text(), shapes.path().string()), shapes_(shapes) {
        storage_ = shapes.storage();
    }

    std::filesystem::path path() const override { return shapes_.path(); }
    void read_rows(std::size_t, const RowSlice&, std::span<std::byte>) const override {}
    void read_vectors(std::size_t, std::span<std::byte>) const override {}
    DType outer_dtype(OuterTensor tensor) const override { return shapes_.outer_dtype(tensor); }
    std::size_t outer_rows(OuterTensor tensor) const override { return shapes_.outer_rows(tensor); }
    void read_outer_rows(OuterTensor, std::size_t, std::size_t, std::span<std::byte>) const override {}
    bool has_own_head() const override { return shapes_.has_own_head(); }
    std::string identity() const override { return shapes_.identity(); }

  private:
    const ModelSource& shapes_;
};

}  // namespace espalier
