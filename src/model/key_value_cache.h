#pragma once
/// Keys and values of the tokens that sequences have so far, block by block, for tokens that are made one after the
/// other.

#include "kernels/device.h"
#include "src/base/index_range.h"
#include "src/model/model_config.h"

#include <cstddef>
#include <vector>

namespace espalier {

class KeyValueCache {
  public:
    /// For `sequences` sequences of up to `tokens` tokens, in the blocks of a range, in the type of passes.
    KeyValueCache(Device& device, const ModelConfig& config, IndexRange blocks, std::size_t sequences,
                  std::size_t tokens, DType dtype)
        : first_(blocks.begin), tokens_(tokens) {
        const auto make = [&] {
            return device.make_tensor(dtype, sequences * tokens, config.key_value_width(), "keys and values");
        };
        for (std::size_t block = blocks.begin; block < blocks.end; ++block) {
            keys_.push_back(make());
            values_.push_back(make());
        }
    }

    std::size_t tokens() const { return tokens_; }
    /// [sequences * tokens, key_value_width] of a block, for the first `sequences` of all.
    TensorView keys(std::size_t block, std::size_t sequences) const { return of(keys_, block, sequences); }
    TensorView values(std::size_t block, std::size_t sequences) const { return of(values_, block, sequences); }

  private:
    TensorView of(const std::vector<Tensor>& tensors, std::size_t block, std::size_t sequences) const {
        return tensors[block - first_].view().row_range(0, sequences * tokens_);
    }

    std::size_t first_, tokens_;
    std::vector<Tensor> keys_, values_;
};

}  // namespace espalier
