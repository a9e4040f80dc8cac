#include "src/model/model_config.h"

#include "src/base/error.h"
#include "src/base/json.h"
#include "src/model/neutral_fields.h"

#include <algorithm>
#include <array>

namespace espalier {

namespace {

/// Typed access to the fields of one JSON object; null counts as absent.
class Fields {
  public:
    Fields(const Json& object, std::string source) : object_(object), source_(std::move(source)) {}

    bool has(const char* name) const { return object_.contains(name) && !object_[name].is_null(); }
    const Json& value(const char* name) const { return object_[name]; }
    const std::string& source() const { return source_; }

    [[noreturn]] void fail(const char* name, const std::string& expected) const {
        const std::string found = has(name) ? object_[name].ascii() : "missing";
        throw InputError(source_ + ": '" + name + "' is " + found + "; " + expected);
    }
    std::size_t size(const char* name, std::optional<std::size_t> otherwise = {}) const {
        if (!has(name) && otherwise) return *otherwise;
        constexpr std::uint64_t largest = std::uint64_t{1} << 31;
        if (!has(name) || !value(name).is_number_unsigned() || value(name).get<std::uint64_t>() == 0 ||
            value(name).get<std::uint64_t>() > largest) {
            fail(name, "a positive integer is expected");
        }
        return value(name).get<std::size_t>();
    }
    double number(const char* name, std::optional<double> otherwise = {}) const {
        if (!has(name) && otherwise) return *otherwise;
        if (!has(name) || !value(name).is_number() || !(value(name).get<double>() > 0)) {
            fail(name, "a positive number is expected");
        }
        return value(name).get<double>();
    }
    bool boolean(const char* name, bool otherwise) const {
        if (!has(name)) return otherwise;
        if (!value(name).is_boolean()) fail(name, "true or false is expected");
        return value(name).get<bool>();
    }
    std::string text(const char* name, const std::string& otherwise) const {
        if (!has(name)) return otherwise;
        if (!value(name).is_string()) fail(name, "a string is expected");
        return value(name).get<std::string>();
    }

  private:
    const Json& object_;
    std::string source_;
};

RopeConfig parse_rope_object(const Fields& fields, double theta, double max_positions) {
    RopeConfig rope;
    rope.theta = fields.number("rope_theta", theta);
    const std::string type = fields.text("rope_type", fields.text("type", "default"));
    if (fields.text("type", type) != type) fields.fail("type", "'" + type + "', as rope_type says, is expected");
    if (type == "dynamic") return rope;  // it acts beyond max_position_embeddings only
    if (type == "default") {
        for (const char* const scales : {"factor", "low_freq_factor", "high_freq_factor", "attention_factor"}) {
            if (!fields.has(scales) || fields.number(scales) == 1.0) continue;
            fields.fail(scales, "of rope type 'default', which scales nothing, no other value than 1 is expected");
        }
        return rope;
    }
    if (type != "linear" && type != "llama3" && type != "yarn") {
        throw InputError(fields.source() + ": rope type '" + type +
                         "' is not supported (default, linear, dynamic, llama3, yarn are)");
    }
    rope.factor = fields.number("factor");
    if (type == "linear") {
        rope.scaling = RopeScaling::linear;
    } else if (type == "llama3") {
        rope.scaling = RopeScaling::llama3;
        rope.low_frequency_factor = fields.number("low_freq_factor");
        rope.high_frequency_factor = fields.number("high_freq_factor");
        rope.original_max_positions = fields.number("original_max_position_embeddings");
        if (rope.high_frequency_factor <= rope.low_frequency_factor) {
            fields.fail("high_freq_factor", "a value above low_freq_factor is expected");
        }
    } else {
        rope.scaling = RopeScaling::yarn;
        rope.original_max_positions = fields.number("original_max_position_embeddings", max_positions);
        rope.beta_fast = fields.number("beta_fast", 32.0);
        rope.beta_slow = fields.number("beta_slow", 1.0);
        if (fields.has("attention_factor")) rope.attention_factor = fields.number("attention_factor");
        for (const char* const unsupported : {"mscale", "mscale_all_dim"}) {
            if (fields.has(unsupported)) fields.fail(unsupported, "yarn with this field is not supported");
        }
        if (!fields.boolean("truncate", true)) fields.fail("truncate", "only true is supported");
    }
    return rope;
}

RopeConfig parse_rope(const Json& json, const Fields& fields, const std::string& source) {
    const double theta = fields.number("rope_theta", 10000.0);
    std::optional<RopeConfig> found;
    for (const char* const name : {"rope_parameters", "rope_scaling"}) {
        if (!fields.has(name)) continue;
        if (!json[name].is_object()) fields.fail(name, "an object is expected");
        const Json* object = &json[name];
        // transformers 5 may nest by kind of attention; sequences within the window all use full attention.
        if (object->contains("full_attention") && (*object)["full_attention"].is_object())
            object = &(*object)["full_attention"];
        const RopeConfig rope = parse_rope_object(Fields(*object, source + ": " + name), theta,
                                                  fields.number("max_position_embeddings", 2048.0));
        if (fields.has("rope_theta") && rope.theta != theta) {
            fields.fail("rope_theta", std::string("the one of ") + name + ", which differs, is expected");
        }
        if (found && *found != rope) fields.fail(name, "the same as rope_parameters is expected");
        found = rope;
    }
    if (found) return *found;
    RopeConfig rope;
    rope.theta = theta;
    return rope;
}

/// The smallest window that some block uses, if any does. Some programs give llama models one that others ignore:
/// sequences within it mean the same to both.
std::optional<std::size_t> parse_sliding_window(const ModelConfig& config, const Json& json, const Fields& fields) {
    if (!fields.has("sliding_window")) return {};
    const bool mistral = config.model_type == "mistral";
    if (!mistral && !fields.boolean("use_sliding_window", config.model_type == "llama")) return {};
    if (!mistral && fields.has("layer_types") && json["layer_types"].is_array()) {
        const auto& types = json["layer_types"];
        if (std::find(types.begin(), types.end(), "sliding_attention") == types.end()) return {};
    } else if (!mistral && fields.has("max_window_layers")) {
        const Json& first = fields.value("max_window_layers");
        if (first.is_number_unsigned() && first.get<std::size_t>() >= config.blocks) return {};
    }
    return fields.size("sliding_window");
}

void parse_heads(ModelConfig& config, const Fields& fields) {
    config.query_heads = fields.size("num_attention_heads");
    if (config.model_type == "mistral" && !fields.has("num_key_value_heads")) {
        fields.fail("num_key_value_heads", "Mistral models must state it");
    }
    config.key_value_heads = fields.size("num_key_value_heads", config.query_heads);
    if (config.query_heads % config.key_value_heads != 0) {
        fields.fail("num_key_value_heads",
                    "a divisor of num_attention_heads (" + std::to_string(config.query_heads) + ") is expected");
    }
    if (!fields.has("head_dim") && config.hidden_size % config.query_heads != 0) {
        fields.fail("num_attention_heads",
                    "without head_dim it must divide hidden_size (" + std::to_string(config.hidden_size) + ")");
    }
    config.head_size = fields.size("head_dim", config.hidden_size / config.query_heads);
    if (config.head_size % 2 != 0) fields.fail("head_dim", "an even head size is expected (rotary embedding)");
}

void parse_biases(ModelConfig& config, const Fields& fields) {
    const bool attention_bias = fields.boolean("attention_bias", false);
    config.qkv_bias = config.model_type == "qwen2" || (attention_bias && config.model_type != "mistral");
    config.output_bias = attention_bias && (config.model_type == "llama" || config.model_type == "qwen3");
    config.mlp_bias = config.model_type == "llama" && fields.boolean("mlp_bias", false);
    config.query_key_norm = config.model_type == "qwen3";
}

}  // namespace

ModelConfig ModelConfig::parse(std::string_view text, const std::string& source) {
    const Json json = parse_strict_json(text, source);
    if (!json.is_object()) throw InputError(source + ": is not a JSON object");
    const Fields fields(json, source);
    ModelConfig config;
    config.model_type = fields.text("model_type", "");
    constexpr std::array supported = {"llama", "mistral", "qwen2", "qwen3"};
    if (std::find(supported.begin(), supported.end(), config.model_type) == supported.end()) {
        fields.fail("model_type", "llama, mistral, qwen2 and qwen3 are supported");
    }
    if (fields.has("quantization_config")) {
        throw InputError(source + ": the model is quantised (quantization_config); prune the original model instead");
    }
    config.hidden_size = fields.size("hidden_size");
    config.intermediate_size = fields.size("intermediate_size");
    config.blocks = fields.size("num_hidden_layers");
    config.vocabulary = fields.size("vocab_size");
    parse_heads(config, fields);
    config.rms_norm_epsilon = static_cast<float>(fields.number("rms_norm_eps"));
    if (!(config.rms_norm_epsilon >= 1e-30F && config.rms_norm_epsilon <= 1.0F)) {
        fields.fail("rms_norm_eps", "a small positive number such as 1e-05 is expected");
    }
    config.max_positions = fields.size("max_position_embeddings", 2048);
    config.rope = parse_rope(json, fields, source);
    config.tied_head = fields.boolean("tie_word_embeddings", false);
    parse_biases(config, fields);
    config.sliding_window = parse_sliding_window(config, json, fields);
    refuse_other_than_neutral(json, config, source);
    return config;
}

std::size_t ModelConfig::longest_sequence() const {
    return std::min(max_positions, sliding_window.value_or(max_positions));
}

void ModelConfig::check_sequence_length(std::size_t tokens) const {
    if (tokens > max_positions) {
        throw InputError("sequence length " + std::to_string(tokens) +
                         " exceeds the model's max_position_embeddings of " + std::to_string(max_positions) +
                         "; use --sequence-length " + std::to_string(max_positions) + " or less");
    }
    if (sliding_window && tokens > *sliding_window) {
        throw InputError("sequence length " + std::to_string(tokens) + " exceeds the model's sliding window of " +
                         std::to_string(*sliding_window) + "; use --sequence-length " +
                         std::to_string(*sliding_window) + " or less");
    }
}

}  // namespace espalier
