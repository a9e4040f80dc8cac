#pragma once
/// What config.json says about a LLaMA-like decoder, in the spellings of transformers 4 and 5.

#include "src/model/rope_config.h"

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace espalier {

/// Where the norms of a half of a block are: of its input, or of its output before that is added to the input.
enum class NormPlacement { before, after };

/// Norms of queries and keys: none, of each head by itself, or of all heads together.
enum class HeadNorm { none, each_head, all_heads };

/// How one decoder block computes; what is the same in all blocks of all families (SiLU gates, attention over the root
/// of the head's size) is not said.
struct BlockSpecification {
    NormPlacement norms = NormPlacement::before;
    HeadNorm head_norm = HeadNorm::none;
    std::shared_ptr<const RopeConfig> rope = {};  ///< the same object in blocks that rotate alike; null: no positions
    bool qkv_bias = false;                        ///< q, k, v
    bool output_bias = false;                     ///< o
    bool mlp_bias = false;                        ///< gate, up, down
    /// Tokens that attention reaches back; it equals full causal attention for sequences not longer than that.
    std::optional<std::size_t> window = {};

    bool operator==(const BlockSpecification&) const = default;
};

struct ModelConfig {
    std::string model_type;  ///< of a family: src/model/families
    std::size_t hidden_size = 0;
    std::size_t intermediate_size = 0;
    std::vector<BlockSpecification> blocks;  ///< one for each, num_hidden_layers
    std::size_t query_heads = 0;
    std::size_t key_value_heads = 0;
    std::size_t head_size = 0;
    std::size_t vocabulary = 0;
    float rms_norm_epsilon = 0;
    std::size_t max_positions = 0;
    bool tied_head = false;

    /// Of the blocks that have one.
    std::optional<std::size_t> smallest_window() const;
    std::size_t query_width() const { return query_heads * head_size; }
    std::size_t key_value_width() const { return key_value_heads * head_size; }

    /// Throws InputError that begins with `source` and names the field, what it holds and what is supported.
    static ModelConfig parse(std::string_view json, const std::string& source);

    /// Throws InputError when attention over `tokens` tokens is not plain causal attention in this model.
    void check_sequence_length(std::size_t tokens) const;
    /// Tokens of the longest sequence that check_sequence_length allows.
    std::size_t longest_sequence() const;
    /// Up to so many tokens sequences have the short factors of longrope; all have where there is none.
    std::size_t longest_short_sequence() const;
};

}  // namespace espalier
