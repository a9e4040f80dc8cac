#pragma once
/// Which weights of a row may be removed together: N:M groups, or a share of the whole row.

#include <cstddef>
#include <string>
#include <string_view>

namespace espalier {

/// Either `keep` of every `group` consecutive inputs of a row survive (N:M), or floor(columns x sparsity) inputs of
/// every row are removed (unstructured).
struct PruningPattern {
    std::size_t keep = 0;
    std::size_t group = 0;  ///< 0 means unstructured
    double sparsity = 0.5;  ///< share removed; (group - keep) / group for N:M

    bool structured() const { return group != 0; }
    /// Weights removed in a row of `columns` inputs.
    std::size_t removed_per_row(std::size_t columns) const;
    /// "2:4" or "unstructured".
    std::string name() const;

    /// "2:4", "4:8", any "N:M" with 0 < N < M, or "unstructured" (then `sparsity` in (0, 1) counts).
    /// Throws InputError on anything else.
    static PruningPattern parse(std::string_view text, double sparsity);
};

}  // namespace espalier
