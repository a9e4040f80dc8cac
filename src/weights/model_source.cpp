#include "src/weights/model_source.h"

#include "kernels/device_numbers.h"
#include "src/base/error.h"

#include <algorithm>

namespace espalier {

std::size_t BlockStorage::total_bytes(const BlockLayout& layout) const {
    std::size_t bytes = matrix_bytes(layout);
    for (std::size_t v = 0; v < layout.vectors().size(); ++v) {
        bytes += layout.vectors()[v].size * bytes_of(vector_dtypes[v]);
    }
    return bytes;
}

ModelSource::ModelSource(std::string config_text, const std::string& config_source)
    : config_text_(std::move(config_text)),
      config_(ModelConfig::parse(config_text_, config_source)),
      layout_(config_) {}

std::size_t ModelSource::outer_panel_rows(OuterTensor tensor) const {
    constexpr std::size_t panel_bytes = std::size_t{4} << 20;
    return std::max<std::size_t>(1, panel_bytes / outer_row_bytes(tensor));
}

std::string outer_name(OuterTensor tensor) {
    switch (tensor) {
        case OuterTensor::embedding:
            return "model.embed_tokens.weight";
        case OuterTensor::final_norm:
            return "model.norm.weight";
        case OuterTensor::head:
            return "lm_head.weight";
    }
    throw BugError("internal error: unknown outer tensor");
}

void load_block(Device& device, const BlockLayout& layout, const BlockStorage& storage, const HostBuffer& raw,
                BlockWeights& weights) {
    require(raw.bytes().size() == storage.total_bytes(layout), "a raw block of the source's size");
    device.convert(raw.view(storage.matrix_dtype, 0, 1, layout.weights()), weights.matrices.all());
    std::size_t offset = storage.matrix_bytes(layout);
    for (std::size_t v = 0; v < layout.vectors().size(); ++v) {
        const VectorShape& vector = layout.vectors()[v];
        // Through the host: after an odd number of 16-bit values a device could not read float32 in place.
        std::vector<float> values(vector.size);
        widen_to_float(storage.vector_dtypes[v], raw.bytes().data() + offset, vector.size, values.data());
        device.copy_from_host(values.data(), weights.vector(vector.vector));
        offset += vector.size * bytes_of(storage.vector_dtypes[v]);
    }
}

void refuse_nonfinite_weights(Device& device, const BlockLayout& layout, std::size_t block,
                              const BlockWeights& weights) {
    struct Checked {
        std::string name;
        TensorView values;
    };
    std::vector<Checked> checked;
    checked.reserve(linear_layers + layout.vectors().size());
    for (const LinearLayer layer : all_linear_layers) {
        checked.push_back({std::string(layout.matrix(layer).name) + ".weight", weights.matrices.matrix(layer)});
    }
    for (const VectorShape& vector : layout.vectors()) {
        checked.push_back({std::string(vector.name), weights.vector(vector.vector)});
    }
    const DeviceCounters counters(device, checked.size());
    for (std::size_t i = 0; i < checked.size(); ++i) device.count_nonfinite(checked[i].values, counters.at(i));
    const std::vector<std::uint64_t> counts = counters.read();
    for (std::size_t i = 0; i < checked.size(); ++i) {
        if (counts[i] == 0) continue;
        throw InputError("tensor '" + checkpoint_name(block, checked[i].name) + "' holds " + std::to_string(counts[i]) +
                         " of " + std::to_string(checked[i].values.size()) +
                         " values that are infinite or not a number");
    }
}

void refuse_overflow(Device& device, const BlockLayout& layout, DType dtype, std::size_t block,
                     const BlockWeights& weights) {
    if (dtype != DType::f16) return;
    const DeviceCounters counters(device, linear_layers);
    for (const LinearLayer layer : all_linear_layers) {
        device.count_nonfinite(weights.matrices.matrix(layer), counters.at(index_of(layer)));
    }
    const std::vector<std::uint64_t> counts = counters.read();
    for (const LinearLayer layer : all_linear_layers) {
        if (counts[index_of(layer)] == 0) continue;
        throw NonFiniteError(std::to_string(counts[index_of(layer)]) + " values of tensor '" +
                             checkpoint_name(block, layout.matrix(layer).name) +
                             ".weight' do not fit float16; choose --output-dtype bfloat16 or float32");
    }
}

}  // namespace espalier
