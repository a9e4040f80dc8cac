#include "src/model/rope_config.h"

#include "src/base/error.h"

#include <cmath>
#include <string>

namespace espalier {

namespace {

void read_llama3(const ConfigFields& fields, RopeConfig& rope) {
    rope.scaling = RopeScaling::llama3;
    rope.low_frequency_factor = fields.number("low_freq_factor");
    rope.high_frequency_factor = fields.number("high_freq_factor");
    rope.original_max_positions = fields.number("original_max_position_embeddings");
    if (rope.high_frequency_factor <= rope.low_frequency_factor) {
        fields.fail("high_freq_factor", "a value above low_freq_factor is expected");
    }
}

void read_yarn(const ConfigFields& fields, double max_positions, RopeConfig& rope) {
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

/// Numbers that keep frequencies and angles inside of float32.
double moderate(const ConfigFields& fields, const char* name, double value) {
    if (!(value >= 1e-6 && value <= 1e6)) fields.fail(name, "numbers from 1e-6 to 1e6 are expected");
    return value;
}

std::vector<double> stretches(const ConfigFields& fields, const char* name, std::size_t count) {
    std::vector<double> factors = fields.numbers(name, count);
    for (const double factor : factors) moderate(fields, name, factor);
    return factors;
}

/// The value of `name` in an object of config.json, or in the whole file; both are the same where both say it.
std::optional<double> stated_once(const ConfigFields& fields, const ConfigFields& whole, const char* name) {
    std::optional<double> found;
    for (const ConfigFields* const place : {&whole, &fields}) {
        if (!place->has(name)) continue;
        const double value = place->number(name);
        if (found && *found != value) fields.fail(name, "the one of config.json itself, which differs, is expected");
        found = value;
    }
    return found;
}

/// LongRoPE (Ding et al. 2024), as transformers computes it: `whole` is config.json, which may hold the original
/// length.
void read_longrope(const ConfigFields& fields, const ConfigFields& whole, double max_positions, RopeConfig& rope) {
    rope.scaling = RopeScaling::longrope;
    const std::optional<double> original = stated_once(fields, whole, "original_max_position_embeddings");
    rope.original_max_positions = original.value_or(max_positions);
    if (rope.original_max_positions <= 1) {
        fields.fail("original_max_position_embeddings", "a number above 1 is expected");
    }
    rope.factor = max_positions / rope.original_max_positions;
    if (fields.has("factor")) {
        const double factor = fields.number("factor");
        if (original && std::abs(factor - rope.factor) > 1e-6 * rope.factor) {
            fields.fail("factor", "max_position_embeddings over original_max_position_embeddings is expected");
        }
        rope.factor = factor;
    }
    rope.attention_factor =
        rope.factor > 1 ? std::sqrt(1 + std::log(rope.factor) / std::log(rope.original_max_positions)) : 1;
    if (fields.has("attention_factor")) {
        rope.attention_factor = moderate(fields, "attention_factor", fields.number("attention_factor"));
    }
    rope.short_factors = stretches(fields, "short_factor", rope.width / 2);
    rope.long_factors = stretches(fields, "long_factor", rope.width / 2);
}

std::size_t rotated_width(const ConfigFields& fields, const ConfigFields& whole, std::size_t head_size) {
    constexpr const char* name = "partial_rotary_factor";
    const double part = stated_once(fields, whole, name).value_or(1);
    const ConfigFields& place = fields.has(name) ? fields : whole;
    const std::string expected = "an even part of a head of " + std::to_string(head_size) + " is expected";
    if (part > 1) place.fail(name, expected);
    const auto width = static_cast<std::size_t>(static_cast<double>(head_size) * part);
    if (width == 0 || width % 2 != 0) place.fail(name, expected);
    return width;
}

/// One object of config.json; `rope` holds width and theta as the whole file says.
RopeConfig read_object(const ConfigFields& fields, const ConfigFields& whole, RopeConfig rope, double max_positions) {
    rope.theta = fields.number("rope_theta", rope.theta);
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
    if (type == "longrope" || type == "su") {
        read_longrope(fields, whole, max_positions, rope);
        return rope;
    }
    if (type != "linear" && type != "llama3" && type != "yarn") {
        throw InputError(fields.source() + ": rope type '" + type +
                         "' is not supported (default, linear, dynamic, llama3, yarn, longrope are)");
    }
    rope.factor = fields.number("factor");
    if (type == "linear") {
        rope.scaling = RopeScaling::linear;
    } else if (type == "llama3") {
        read_llama3(fields, rope);
    } else {
        read_yarn(fields, max_positions, rope);
    }
    return rope;
}

}  // namespace

RopeConfig read_rope(const ConfigFields& fields, std::size_t head_size, bool partial) {
    RopeConfig plain;
    plain.theta = fields.number("rope_theta", 10000.0);
    plain.width = partial ? rotated_width(fields, fields, head_size) : head_size;
    std::optional<RopeConfig> found;
    for (const char* const name : {"rope_parameters", "rope_scaling"}) {
        if (!fields.has(name)) continue;
        const ConfigFields object = fields.inner(name);
        // transformers 5 may nest by kind of attention; sequences within the window all use full attention.
        const bool nested = object.has("full_attention") && object.value("full_attention").is_object();
        const Json& described = nested ? object.value("full_attention") : object.object();
        const ConfigFields of_rope(described, object.source());
        if (partial) plain.width = rotated_width(of_rope, fields, head_size);
        const RopeConfig rope = read_object(of_rope, fields, plain, fields.number("max_position_embeddings", 2048.0));
        if (fields.has("rope_theta") && rope.theta != plain.theta) {
            fields.fail("rope_theta", std::string("the one of ") + name + ", which differs, is expected");
        }
        if (found && *found != rope) fields.fail(name, "the same as rope_parameters is expected");
        found = rope;
    }
    return found.value_or(plain);
}

}  // namespace espalier
