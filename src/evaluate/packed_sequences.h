#pragma once
/// What goes through a model together when likelihoods of tokens are asked for.

#include "src/model/block_half.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace espalier {

/// Sequences of one pass, one after the other without padding. A pass is computed whole by one rank: so a sequence has
/// the same place in a product of the same size on any number of ranks, and its digits do not depend on it.
struct PackedSequences {
    std::vector<std::int32_t> ids;  ///< of the rows
    std::vector<RowSegment> segments;
    /// Predictions, continuation after continuation: the row that makes each, and the token that is asked for.
    std::vector<std::uint32_t> rows;
    std::vector<std::int32_t> targets;
    std::vector<std::size_t> continuations;  ///< predictions of each
};

/// The most of any pass.
struct PackingShape {
    std::size_t tokens = 0;  ///< of a sequence
    std::size_t rows = 0, predictions = 0;
    bool with_prefixes = false;  ///< some sequences share a beginning
};

PackingShape shape_of(std::span<const PackedSequences> passes);

/// Rows of a product, from which on more make it no faster.
constexpr std::size_t rows_at_once = 512;

}  // namespace espalier
