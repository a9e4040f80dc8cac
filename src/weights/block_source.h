#pragma once
/// Where the weights of decoder blocks come from, in whole or in parts.

#include "src/base/dtype.h"
#include "src/model/block_layout.h"

#include <cstddef>
#include <span>
#include <vector>

namespace espalier {

/// How one decoder block lies in host memory: the matrices in layout order, then the vectors, each in its stored
/// type and without gaps. The same for all blocks of a source.
struct BlockStorage {
    DType matrix_dtype = DType::f32;
    std::vector<DType> vector_dtypes;  ///< one for each of layout.vectors()

    std::size_t matrix_bytes(const BlockLayout& layout) const { return layout.weights() * bytes_of(matrix_dtype); }
    std::size_t vector_bytes(const BlockLayout& layout) const;
    std::size_t total_bytes(const BlockLayout& layout) const { return matrix_bytes(layout) + vector_bytes(layout); }
};

/// All reading is thread-safe. Throws InputError naming file and tensor.
class BlockSource {
  public:
    virtual ~BlockSource() = default;

    virtual const BlockLayout& layout() const = 0;
    const BlockStorage& storage() const { return storage_; }

    /// Some rows of a matrix in the stored type.
    virtual void read_rows(std::size_t block, const RowSlice& rows, std::span<std::byte> destination) const = 0;
    /// All vectors of the layout, one after the other: storage().vector_bytes(layout()).
    virtual void read_vectors(std::size_t block, std::span<std::byte> destination) const = 0;
    /// Throws InputError when the block's file is not the one that a manifest names; reads all of it. Checkpoints have
    /// no such record.
    virtual void verify_block(std::size_t block) const { static_cast<void>(block); }

    /// Verifies and reads the whole block: storage().total_bytes(layout()).
    void read_block(std::size_t block, std::span<std::byte> destination) const;

  protected:
    BlockStorage storage_;
};

}  // namespace espalier
