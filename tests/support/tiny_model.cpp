#include "tests/support/tiny_model.h"

#include "io/safetensors.h"
#include "src/model/rope_table.h"
#include "src/weights/model_source.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/test_device.h"

#include <algorithm>
#include <cmath>

namespace espalier::support {

const std::vector<std::string> families = {"llama",     "llama-grouped", "llama-bias", "mistral",
                                           "qwen2",     "qwen3",         "qwen3-bias", "phi3",
                                           "phi3-mini", "olmo2",         "smollm3",    "mistral3"};

Json tiny_config(const std::string& family, const Json& changes) {
    const std::string model_type = family.substr(0, family.find('-'));
    Json config = {{"model_type", model_type == "mistral3" ? "mistral" : model_type},
                   {"hidden_size", 16},
                   {"intermediate_size", 24},
                   {"num_hidden_layers", 2},
                   {"num_attention_heads", 4},
                   {"num_key_value_heads", family == "llama" ? 4 : 2},
                   {"vocab_size", 40},
                   {"hidden_act", "silu"},
                   {"rms_norm_eps", 1e-5},
                   {"max_position_embeddings", 64},
                   {"tie_word_embeddings", false},
                   {"torch_dtype", "float32"}};
    if (family == "llama-bias") config["attention_bias"] = config["mlp_bias"] = true;
    if (family == "qwen3-bias") config["attention_bias"] = true;
    if (family.starts_with("qwen3")) config["head_dim"] = 6;  // not hidden_size / heads
    if (family == "phi3-mini") {
        config["head_dim"] = 8;
        config["partial_rotary_factor"] = 0.75;
        config["original_max_position_embeddings"] = 32;
        config["rope_scaling"] = {{"type", "longrope"}, {"short_factor", {1, 1.5, 2}}, {"long_factor", {1, 4, 7.5}}};
    }
    if (family == "smollm3") {
        config["no_rope_layer_interval"] = 2;
        config["rope_theta"] = 5e6;
    }
    for (const auto& [name, value] : changes.items()) {
        if (value.is_null())
            config.erase(name);
        else
            config[name] = value;
    }
    if (family == "mistral3") return {{"model_type", "mistral3"}, {"text_config", config}};
    return config;
}

ModelConfig parse_tiny_config(const std::string& family, const Json& changes) {
    return ModelConfig::parse(tiny_config(family, changes).dump(), "config.json");
}

HostBlock random_block(Random& random, const BlockLayout& layout) {
    HostBlock block;
    for (const MatrixShape& shape : layout.matrices()) {
        block.matrices.push_back(random.normals(shape.size(), 1 / std::sqrt(static_cast<double>(shape.columns))));
    }
    for (const VectorShape& vector : layout.vectors()) {
        std::vector<float> values = random.normals(vector.size, 0.1);
        for (float& value : values) value += vector.bias_of ? 0.0F : 1.0F;
        block.vectors.push_back(std::move(values));
    }
    return block;
}

BlockWeights upload_block(Device& device, const BlockLayout& layout, const HostBlock& block, std::size_t index) {
    BlockWeights weights(device, layout, DType::f32);
    weights.block = index;
    for (const LinearLayer layer : layout.linear_layers()) {
        device.copy_from_host(block.matrix(layer).data(), weights.matrices.matrix(layer));
    }
    for (std::size_t v = 0; v < block.vectors.size(); ++v) {
        device.copy_from_host(block.vectors[v].data(), weights.vector(BlockVector{v}));
    }
    return weights;
}

namespace {

using Doubles = std::vector<double>;

/// One block in float64, with one weight moved.
class ReferenceBlock {
  public:
    ReferenceBlock(const ModelConfig& config, const HostBlock& block, std::size_t tokens, std::size_t index)
        : config_(config), specification_(config.blocks[index]), block_(block), layout_(config), tokens_(tokens) {}

    void move(LinearLayer layer, std::size_t element, double by) {
        moved_layer_ = layer;
        moved_element_ = element;
        moved_by_ = by;
    }

    Doubles forward(const Doubles& x) const {
        const Doubles h = add_half(x, attention(norm(x, layout_.attention.input_norm)), layout_.attention.output_norm);
        return add_half(h, mlp(norm(h, layout_.mlp.input_norm)), layout_.mlp.output_norm);
    }

  private:
    Doubles attention(const Doubles& x) const {
        const AttentionTensors& tensors = layout_.attention;
        Doubles q = norm(project(x, tensors.q), tensors.query_norm), k = norm(project(x, tensors.k), tensors.key_norm);
        rotate(q, config_.query_heads);
        rotate(k, config_.key_value_heads);
        return project(attend(q, k, project(x, tensors.v)), tensors.o);
    }
    Doubles mlp(const Doubles& h) const {
        const Doubles gate = project(h, layout_.mlp.gate);
        Doubles up = project(h, layout_.mlp.up);
        for (std::size_t i = 0; i < up.size(); ++i) up[i] *= gate[i] / (1 + std::exp(-gate[i]));
        return project(up, layout_.mlp.down);
    }
    Doubles add_half(const Doubles& x, const Doubles& half, const std::optional<BlockVector>& output_norm) const {
        Doubles sum = norm(half, output_norm);
        for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += x[i];
        return sum;
    }
    double weight(LinearLayer layer, std::size_t element) const {
        const auto stored = static_cast<double>(block_.matrix(layer)[element]);
        return layer == moved_layer_ && element == moved_element_ ? stored + moved_by_ : stored;
    }
    Doubles project(const Doubles& x, LinearLayer layer) const {
        const MatrixShape& shape = layout_.matrix(layer);
        Doubles y(tokens_ * shape.rows);
        for (std::size_t t = 0; t < tokens_; ++t) {
            for (std::size_t i = 0; i < shape.rows; ++i) {
                double sum = shape.bias ? static_cast<double>(block_.vector(*shape.bias)[i]) : 0;
                for (std::size_t j = 0; j < shape.columns; ++j) {
                    sum += x[t * shape.columns + j] * weight(layer, i * shape.columns + j);
                }
                y[t * shape.rows + i] = sum;
            }
        }
        return y;
    }
    /// By as many channels as the norm has gains; x itself where there is none.
    Doubles norm(const Doubles& x, const std::optional<BlockVector>& which) const {
        if (!which) return x;
        const std::vector<float>& scale = block_.vector(*which);
        const std::size_t width = scale.size();
        Doubles y(x.size());
        for (std::size_t first = 0; first < x.size(); first += width) {
            double square = 0;
            for (std::size_t j = 0; j < width; ++j) square += x[first + j] * x[first + j];
            const double inverse =
                1 / std::sqrt(square / static_cast<double>(width) + static_cast<double>(config_.rms_norm_epsilon));
            for (std::size_t j = 0; j < width; ++j)
                y[first + j] = x[first + j] * inverse * static_cast<double>(scale[j]);
        }
        return y;
    }
    void rotate(Doubles& x, std::size_t heads) const {
        if (!specification_.rope) return;
        const std::size_t d = config_.head_size, half = specification_.rope->width / 2;
        const RopeTable table = make_rope_table(*specification_.rope, tokens_);
        for (std::size_t t = 0; t < tokens_; ++t) {
            for (std::size_t head = 0; head < heads; ++head) {
                double* const values = x.data() + (t * heads + head) * d;
                for (std::size_t i = 0; i < half; ++i) {
                    const auto c = static_cast<double>(table.cosine[t * half + i]),
                               s = static_cast<double>(table.sine[t * half + i]);
                    const double a = values[i], b = values[i + half];
                    values[i] = a * c - b * s;
                    values[i + half] = b * c + a * s;
                }
            }
        }
    }
    Doubles attend(const Doubles& q, const Doubles& k, const Doubles& v) const {
        const std::size_t d = config_.head_size, width = config_.query_width(), kv_width = config_.key_value_width();
        Doubles out(tokens_ * width, 0.0);
        for (std::size_t head = 0; head < config_.query_heads; ++head) {
            const std::size_t kv = head / (config_.query_heads / config_.key_value_heads);
            for (std::size_t i = 0; i < tokens_; ++i) {
                Doubles weights(i + 1);
                double sum = 0;
                for (std::size_t j = 0; j <= i; ++j) {
                    double score = 0;
                    for (std::size_t c = 0; c < d; ++c)
                        score += q[i * width + head * d + c] * k[j * kv_width + kv * d + c];
                    weights[j] = std::exp(score / std::sqrt(static_cast<double>(d)));
                    sum += weights[j];
                }
                for (std::size_t j = 0; j <= i; ++j) {
                    for (std::size_t c = 0; c < d; ++c) {
                        out[i * width + head * d + c] += weights[j] / sum * v[j * kv_width + kv * d + c];
                    }
                }
            }
        }
        return out;
    }

    const ModelConfig& config_;
    const BlockSpecification& specification_;
    const HostBlock& block_;
    BlockLayout layout_;
    std::size_t tokens_;
    std::optional<LinearLayer> moved_layer_;
    std::size_t moved_element_ = 0;
    double moved_by_ = 0;
};

std::string safetensors_word(DType dtype) {
    return dtype == DType::f32 ? "F32" : dtype == DType::f16 ? "F16" : dtype == DType::bf16 ? "BF16" : "U8";
}

std::size_t count_of(const std::vector<std::uint64_t>& shape) {
    std::size_t count = 1;
    for (const std::uint64_t dimension : shape) count *= static_cast<std::size_t>(dimension);
    return count;
}

}  // namespace

std::vector<double> reference_block(const ModelConfig& config, const HostBlock& block, const std::vector<double>& x,
                                    std::size_t tokens, std::size_t index) {
    return ReferenceBlock(config, block, tokens, index).forward(x);
}

std::vector<double> reference_block_moved(const ModelConfig& config, const HostBlock& block, LinearLayer layer,
                                          std::size_t element, double by, const std::vector<double>& x,
                                          std::size_t tokens, std::size_t index) {
    ReferenceBlock reference(config, block, tokens, index);
    reference.move(layer, element, by);
    return reference.forward(x);
}

std::vector<std::byte> stored_bytes(const TinyTensor& tensor) {
    std::vector<std::byte> bytes(tensor.values.size() * bytes_of(tensor.dtype));
    round_from_float(tensor.dtype, tensor.values.data(), tensor.values.size(), bytes.data());
    return bytes;
}

TinyTensor& TinyModel::tensor(const std::string& name) {
    const auto found =
        std::find_if(tensors.begin(), tensors.end(), [&](const TinyTensor& t) { return t.name == name; });
    require(found != tensors.end(), "a tensor of the tiny model");
    return *found;
}

const TinyTensor& TinyModel::tensor(const std::string& name) const {
    return const_cast<TinyModel*>(this)->tensor(name);
}

bool TinyModel::has(const std::string& name) const {
    return std::any_of(tensors.begin(), tensors.end(), [&](const TinyTensor& t) { return t.name == name; });
}

void TinyModel::remove(const std::string& name) {
    std::erase_if(tensors, [&](const TinyTensor& t) { return t.name == name; });
}

HostBlock TinyModel::block(const BlockLayout& layout, std::size_t index) const {
    HostBlock block;
    for (const LinearLayer layer : layout.linear_layers()) {
        const MatrixShape& shape = layout.matrix(layer);
        const std::vector<float>& stored = tensor(layout.weight_name(index, layer)).values;
        const auto begin = stored.begin() + static_cast<std::ptrdiff_t>(shape.stored_row * shape.columns);
        block.matrices.emplace_back(begin, begin + static_cast<std::ptrdiff_t>(shape.size()));
    }
    for (const VectorShape& vector : layout.vectors()) {
        block.vectors.push_back(tensor(layout.tensor_name(index, vector.name)).values);
    }
    return block;
}

void TinyModel::write(const std::filesystem::path& folder, std::size_t shards) const {
    std::filesystem::create_directories(folder);
    write_file(folder / "config.json", config.dump(2));
    write_file(folder / "tokenizer.json", "{\"tiny\": true}");
    Json weight_map = Json::object();
    for (std::size_t shard = 0; shard < shards; ++shard) {
        const std::string file = shards == 1 ? "model.safetensors"
                                             : "model-0000" + std::to_string(shard + 1) + "-of-0000" +
                                                   std::to_string(shards) + ".safetensors";
        std::vector<std::pair<std::string, SafetensorsEntry>> entries;
        std::string data;
        for (std::size_t i = shard * tensors.size() / shards; i < (shard + 1) * tensors.size() / shards; ++i) {
            const std::vector<std::byte> bytes = stored_bytes(tensors[i]);
            entries.emplace_back(tensors[i].name, SafetensorsEntry{safetensors_word(tensors[i].dtype), tensors[i].shape,
                                                                   0, bytes.size()});
            data.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
            weight_map[tensors[i].name] = file;
        }
        write_file(folder / file, make_safetensors_header(entries, {{"format", "pt"}}) + data);
    }
    if (shards > 1) {
        write_file(folder / "model.safetensors.index.json",
                   Json{{"metadata", {{"total_size", 1}}}, {"weight_map", weight_map}}.dump());
    }
}

TinyModel make_tiny_model(const std::string& family, DType dtype, std::uint64_t seed, const Json& changes) {
    TinyModel model{tiny_config(family, changes), {}};
    const ModelConfig config = ModelConfig::parse(model.config.dump(), "config.json");
    const BlockLayout layout(config);
    Random random(seed);
    const auto add = [&](const std::string& name, std::vector<std::uint64_t> shape, std::vector<float> values) {
        require(values.size() == count_of(shape), "as many values as the shape says");
        model.tensors.push_back({name, dtype, std::move(shape), std::move(values)});
    };
    const std::size_t hidden = config.hidden_size, vocabulary = config.vocabulary;
    add(layout.outer_name(OuterTensor::embedding), {vocabulary, hidden}, random.normals(vocabulary * hidden));
    for (std::size_t b = 0; b < config.blocks.size(); ++b) {
        HostBlock block = random_block(random, layout);
        for (std::size_t stored = 0; stored < layout.stored_matrices().size(); ++stored) {
            const StoredMatrix& matrix = layout.stored_matrices()[stored];
            std::vector<float> values;
            for (const LinearLayer layer : layout.linear_layers()) {
                if (layout.matrix(layer).stored != stored) continue;
                values.insert(values.end(), block.matrix(layer).begin(), block.matrix(layer).end());
            }
            add(layout.tensor_name(b, matrix.name), {matrix.rows, matrix.columns}, std::move(values));
        }
        for (std::size_t v = 0; v < layout.vectors().size(); ++v) {
            add(layout.tensor_name(b, layout.vectors()[v].name), {layout.vectors()[v].size},
                std::move(block.vectors[v]));
        }
    }
    add(layout.outer_name(OuterTensor::final_norm), {hidden}, std::vector<float>(hidden, 1.0F));
    if (!config.tied_head || family == "mistral3") {  // whose configuration does not say that it is not tied
        add(layout.outer_name(OuterTensor::head), {vocabulary, hidden}, random.normals(vocabulary * hidden, 0.3));
    }
    if (family == "mistral3") add("vision_tower.patch_conv.weight", {6, 5}, random.normals(30));
    return model;
}

}  // namespace espalier::support
