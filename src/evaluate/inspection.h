#pragma once
/// Recounts a pruned model from its files: every row and group, checksums, untouched tensors.

#include "src/model/block_layout.h"

#include <cstddef>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace espalier {

/// One block's counts.
struct BlockInspection {
    std::size_t block = 0;
    std::vector<double> zero_share;  ///< by matrix, of stored weights
    bool pruned = false;  ///< masks (run folders) or zeros (exports) of the pattern are expected, and were checked
};

struct Inspection {
    std::vector<BlockInspection> blocks;
    std::vector<std::string> faults;   ///< empty when all holds
    std::vector<std::string> checked;  ///< what was checked, for the reader
    BlockLayout layout;
    std::vector<std::string> remarks = {};  ///< of the sources, as lines of the log
};

/// Inspects a run folder or a model folder. With `dense` also compares every tensor that pruning must not touch bit for
/// bit, and the surviving weights of methods that do not change them. Throws InputError when the files cannot be read
/// at all.
Inspection inspect_model(const std::filesystem::path& path, const std::optional<std::filesystem::path>& dense,
                         const std::function<void(const std::string&)>& progress);

}  // namespace espalier
