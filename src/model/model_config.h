#pragma once
/// What config.json says about a LLaMA-family decoder, in the spellings of transformers 4 and 5.

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace espalier {

enum class RopeScaling { none, linear, llama3, yarn };

/// Rotary position embedding: frequencies theta^(-2i/head_size), then scaled.
struct RopeConfig {
    double theta = 10000;
    RopeScaling scaling = RopeScaling::none;
    double factor = 1;
    double low_frequency_factor = 1;         ///< llama3
    double high_frequency_factor = 4;        ///< llama3
    double original_max_positions = 8192;    ///< llama3, yarn
    double beta_fast = 32;                   ///< yarn
    double beta_slow = 1;                    ///< yarn
    std::optional<double> attention_factor;  ///< yarn; 0.1 ln(factor) + 1 when absent

    bool operator==(const RopeConfig&) const = default;
};

struct ModelConfig {
    std::string model_type;  ///< llama, mistral, qwen2, qwen3
    std::size_t hidden_size = 0;
    std::size_t intermediate_size = 0;
    std::size_t blocks = 0;  ///< num_hidden_layers
    std::size_t query_heads = 0;
    std::size_t key_value_heads = 0;
    std::size_t head_size = 0;
    std::size_t vocabulary = 0;
    float rms_norm_epsilon = 0;
    RopeConfig rope;
    std::size_t max_positions = 0;
    bool tied_head = false;
    bool qkv_bias = false;     ///< q, k, v
    bool output_bias = false;  ///< o
    bool mlp_bias = false;     ///< gate, up, down
    bool query_key_norm = false;
    /// Smallest sliding window of any block; attention equals full causal attention for sequences not longer than it.
    std::optional<std::size_t> sliding_window;

    std::size_t query_width() const { return query_heads * head_size; }
    std::size_t key_value_width() const { return key_value_heads * head_size; }

    /// Throws InputError that begins with `source` and names the field, what it holds and what is supported.
    static ModelConfig parse(std::string_view json, const std::string& source);

    /// Throws InputError when attention over `tokens` tokens is not plain causal attention in this model.
    void check_sequence_length(std::size_t tokens) const;
    /// Tokens of the longest sequence that check_sequence_length allows.
    std::size_t longest_sequence() const;
};

}  // namespace espalier
