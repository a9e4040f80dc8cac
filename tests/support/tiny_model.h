#pragma once
/// Small random models of every family: configurations, blocks on host and device, and whole Hugging Face folders.

#include "kernels/device.h"
#include "src/base/json.h"
#include "src/model/block_weights.h"
#include "src/model/model_config.h"
#include "tests/support/random.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace espalier::support {

/// Every family of the program, and of some more than one: all combinations of grouped queries, biases, norms, rotary
/// embedding and tensors stored together that it knows.
extern const std::vector<std::string> families;

/// config.json of a tiny model of a family; `changes` are merged in last (null removes a field).
Json tiny_config(const std::string& family, const Json& changes = Json::object());
ModelConfig parse_tiny_config(const std::string& family, const Json& changes = Json::object());

/// The weights of one block in float32 on the host.
struct HostBlock {
    std::vector<std::vector<float>> matrices, vectors;  ///< as in the layout

    const std::vector<float>& matrix(LinearLayer layer) const { return matrices[index_of(layer)]; }
    const std::vector<float>& vector(BlockVector which) const { return vectors[index_of(which)]; }
};
/// Matrices of standard deviation 1 / sqrt(width), norms around 1, small biases: activations stay of order 1.
HostBlock random_block(Random& random, const BlockLayout& layout);
BlockWeights upload_block(Device& device, const BlockLayout& layout, const HostBlock& block, std::size_t index = 0);

/// f(x) of block `index` in float64, written from the equations without tiles, panels or kept activations.
std::vector<double> reference_block(const ModelConfig& config, const HostBlock& block, const std::vector<double>& x,
                                    std::size_t tokens, std::size_t index = 0);
/// The same with one weight of one matrix moved.
std::vector<double> reference_block_moved(const ModelConfig& config, const HostBlock& block, LinearLayer layer,
                                          std::size_t element, double by, const std::vector<double>& x,
                                          std::size_t tokens, std::size_t index = 0);

/// One tensor of a checkpoint.
struct TinyTensor {
    std::string name;
    DType dtype = DType::f32;
    std::vector<std::uint64_t> shape;
    std::vector<float> values;  ///< rounded to `dtype` when written
};

struct TinyModel {
    Json config;
    std::vector<TinyTensor> tensors;

    TinyTensor& tensor(const std::string& name);
    const TinyTensor& tensor(const std::string& name) const;
    bool has(const std::string& name) const;
    void remove(const std::string& name);
    /// A block as the files hold it.
    HostBlock block(const BlockLayout& layout, std::size_t index) const;
    /// Writes config.json, tokenizer.json and the tensors, in `shards` files (with an index when there are several).
    void write(const std::filesystem::path& folder, std::size_t shards = 1) const;
};

/// A whole random model; matrices, embedding and head in `dtype`, vectors too.
TinyModel make_tiny_model(const std::string& family, DType dtype = DType::f32, std::uint64_t seed = 1,
                          const Json& changes = Json::object());

/// Elements as a file stores them.
std::vector<std::byte> stored_bytes(const TinyTensor& tensor);

}  // namespace espalier::support
