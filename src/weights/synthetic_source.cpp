#include "src/weights/synthetic_source.h"

#include "src/base/error.h"
#include "src/base/json.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <utility>
#include <vector>

namespace espalier {

namespace {

constexpr std::string_view prefix = "synthetic:";

struct SyntheticModel {
    std::string_view name;
    const char* config;  ///< what its config.json says about shapes
};

constexpr std::array<SyntheticModel, 7> models = {
    {{"llama-2-7b", R"({"model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008,
        "num_hidden_layers": 32, "num_attention_heads": 32, "vocab_size": 32000, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 4096})"},
     {"llama-2-13b", R"({"model_type": "llama", "hidden_size": 5120, "intermediate_size": 13824,
        "num_hidden_layers": 40, "num_attention_heads": 40, "vocab_size": 32000, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 4096})"},
     {"llama-2-70b", R"({"model_type": "llama", "hidden_size": 8192, "intermediate_size": 28672,
        "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 32000,
        "rms_norm_eps": 1e-5, "max_position_embeddings": 4096})"},
     {"llama-3.1-8b", R"({"model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
        "rms_norm_eps": 1e-5, "max_position_embeddings": 131072, "rope_theta": 500000.0,
        "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192}})"},
     {"mistral-7b", R"({"model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32768,
        "rms_norm_eps": 1e-5, "max_position_embeddings": 32768, "rope_theta": 1000000.0, "sliding_window": null})"},
     {"qwen2.5-72b", R"({"model_type": "qwen2", "hidden_size": 8192, "intermediate_size": 29568,
        "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 152064,
        "rms_norm_eps": 1e-6, "max_position_embeddings": 32768, "rope_theta": 1000000.0})"},
     {"llama-tiny", R"({"model_type": "llama", "hidden_size": 64, "intermediate_size": 176,
        "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 512,
        "rms_norm_eps": 1e-5, "max_position_embeddings": 2048})"}}};

/// config.json of "synthetic:family" or "synthetic:family:blocks".
std::string config_of(const std::string& name) {
    std::string known;
    for (const SyntheticModel& model : models) known += (known.empty() ? "" : ", ") + std::string(model.name);
    const std::string_view rest = std::string_view(name).substr(prefix.size());
    const std::size_t colon = rest.find(':');
    for (const SyntheticModel& model : models) {
        if (model.name != rest.substr(0, colon)) continue;
        Json config = Json::parse(model.config);
        config["architectures"] = Json::array({"SyntheticForCausalLM"});
        config["tie_word_embeddings"] = false;
        config["torch_dtype"] = "bfloat16";
        if (colon == std::string_view::npos) return config.dump(1);
        const std::string_view text = rest.substr(colon + 1);
        const auto blocks = config["num_hidden_layers"].get<std::size_t>();
        std::size_t fewer = 0;
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), fewer);
        if (error != std::errc() || end != text.data() + text.size() || fewer == 0 || fewer > blocks) {
            throw InputError("--model " + name + ": '" + std::string(text) + "' is not a number of blocks from 1 to " +
                             std::to_string(blocks));
        }
        config["num_hidden_layers"] = fewer;
        return config.dump(1);
    }
    throw InputError("--model " + name + ": not one of the synthetic models " + known +
                     " (each also with fewer blocks: synthetic:llama-2-70b:4)");
}

/// 32 bits that look random (the finaliser of MurmurHash3); plain enough for a compiler to vectorise.
inline std::uint32_t mixed(std::uint32_t value) {
    value ^= value >> 16;
    value *= 0x85EBCA6BU;
    value ^= value >> 13;
    value *= 0xC2B2AE35U;
    return value ^ (value >> 16);
}

/// Elements first … of the tensor `key` as bfloat16.
void fill_part(std::uint32_t key, std::uint64_t first, std::span<std::byte> destination) {
    constexpr float deviation = 0.02F, of_the_sum = 37837.2F;  // 65536 sqrt(4 / 12)
    constexpr std::size_t piece = 1024;
    std::array<float, piece> values;
    for (std::size_t begin = 0; begin < destination.size() / 2; begin += piece) {
        const std::size_t count = std::min(piece, destination.size() / 2 - begin);
        const std::uint64_t place = first + begin;
        // A new stream every 2^32 elements would repeat: the high half goes into the key.
        const std::uint32_t low = static_cast<std::uint32_t>(place),
                            stream = mixed(key ^ mixed(static_cast<std::uint32_t>(place >> 32) + 0x9E3779B9U));
        for (std::size_t i = 0; i < count; ++i) {
            const std::uint32_t a = mixed((low + static_cast<std::uint32_t>(i)) ^ stream);
            const std::uint32_t b = mixed(a + 0x6C078965U);
            const auto sum = static_cast<std::int32_t>((a & 0xFFFFU) + (a >> 16) + (b & 0xFFFFU) + (b >> 16)) - 131070;
            values[i] = static_cast<float>(sum) * (deviation / of_the_sum);
        }
        round_from_float(DType::bf16, values.data(), count, destination.data() + 2 * begin);
    }
}

/// The same on this rank's share of the cores: making a block up must not take longer than pruning it.
void fill_bell_shaped(std::uint32_t key, std::uint64_t first, std::span<std::byte> destination) {
    constexpr std::size_t part_bytes = std::size_t{1} << 20;
    const std::size_t parts = (destination.size() + part_bytes - 1) / part_bytes;
#pragma omp parallel for schedule(static)
    for (std::size_t part = 0; part < parts; ++part) {
        const std::size_t begin = part * part_bytes, size = std::min(part_bytes, destination.size() - begin);
        fill_part(key, first + begin / 2, destination.subspan(begin, size));
    }
}

void fill_ones(std::span<std::byte> destination) {
    const std::uint16_t one = bf16_from_float(1.0F);
    for (std::size_t i = 0; i < destination.size(); i += 2) std::memcpy(destination.data() + i, &one, 2);
}

std::uint32_t key_of(std::size_t block, std::size_t tensor) {
    return mixed(static_cast<std::uint32_t>(block * 64 + tensor) + 1);
}

// Of a block, behind those of its matrices; as it is, since the made-up models of all versions have the same bits.
constexpr std::size_t first_bias_key = 11;
constexpr std::size_t outside_of_blocks = 1 << 20;

}  // namespace

SyntheticSource::SyntheticSource(const std::string& name) : ModelSource(config_of(name), name), name_(name) {
    storage_.matrix_dtype = DType::bf16;
    storage_.vector_dtypes.assign(layout().vectors().size(), DType::bf16);
}

void SyntheticSource::read_rows(std::size_t block, const RowSlice& rows, std::span<std::byte> destination) const {
    const std::size_t columns = layout().matrix(rows.layer).columns;
    require(destination.size() == 2 * rows.rows() * columns, "room for the rows");
    fill_bell_shaped(key_of(block, index_of(rows.layer)), static_cast<std::uint64_t>(rows.row_begin) * columns,
                     destination);
}

void SyntheticSource::read_vectors(std::size_t block, std::span<std::byte> destination) const {
    std::size_t offset = 0;
    for (const VectorShape& vector : layout().vectors()) {
        const std::span<std::byte> place = destination.subspan(offset, 2 * vector.size);
        if (!vector.bias_of)
            fill_ones(place);
        else
            fill_bell_shaped(key_of(block, first_bias_key + index_of(*vector.bias_of)), 0, place);
        offset += place.size();
    }
}

std::size_t SyntheticSource::outer_rows(OuterTensor tensor) const {
    return tensor == OuterTensor::final_norm ? config().hidden_size : config().vocabulary;
}

void SyntheticSource::read_outer_rows(OuterTensor tensor, std::size_t first, std::size_t rows,
                                      std::span<std::byte> destination) const {
    require(destination.size() == rows * outer_row_bytes(tensor), "room for the rows");
    if (tensor == OuterTensor::final_norm) return fill_ones(destination);
    fill_bell_shaped(key_of(outside_of_blocks, static_cast<std::size_t>(tensor)),
                     static_cast<std::uint64_t>(first) * outer_columns(tensor), destination);
}

}  // namespace espalier
