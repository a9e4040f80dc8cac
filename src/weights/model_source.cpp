#include "src/weights/model_source.h"

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

namespace {

void refuse_nonfinite(Device& device, TensorView values, const std::string& name) {
    const std::size_t count = device.count_nonfinite(values);
    if (count > 0) {
        throw InputError("tensor '" + name + "' holds " + std::to_string(count) + " of " +
                         std::to_string(values.size()) + " values that are infinite or not a number");
    }
}

/// Widens `count` stored elements into `destination` on the device. `raw` may be unaligned.
void load_tensor(Device& device, std::span<const std::byte> raw, DType dtype, TensorView destination) {
    if (dtype == destination.dtype) {
        device.copy_from_host(raw.data(), destination);
        return;
    }
    const Tensor stored = device.make_tensor(dtype, destination.rows, destination.columns);
    device.copy_from_host(raw.data(), stored);
    device.convert(stored, destination);
}

}  // namespace

void load_block(Device& device, const BlockLayout& layout, const BlockStorage& storage, std::span<const std::byte> raw,
                std::size_t block, BlockWeights& weights) {
    require(raw.size() == storage.total_bytes(layout), "a raw block of the source's size");
    std::size_t offset = 0;
    const auto load = [&](std::string_view name, DType dtype, TensorView destination) {
        load_tensor(device, raw.subspan(offset, destination.size() * bytes_of(dtype)), dtype, destination);
        offset += destination.size() * bytes_of(dtype);
        refuse_nonfinite(device, destination, checkpoint_name(block, name));
    };
    for (const LinearLayer layer : all_linear_layers) {
        load(std::string(layout.matrix(layer).name) + ".weight", storage.matrix_dtype, weights.matrices.matrix(layer));
    }
    for (std::size_t v = 0; v < layout.vectors().size(); ++v) {
        const VectorShape& vector = layout.vectors()[v];
        load(vector.name, storage.vector_dtypes[v], weights.vector(vector.vector));
    }
}

void refuse_overflow(Device& device, const BlockLayout& layout, DType dtype, std::size_t block,
                     const BlockWeights& weights) {
    if (dtype != DType::f16) return;
    for (const LinearLayer layer : all_linear_layers) {
        const std::size_t count = device.count_nonfinite(weights.matrices.matrix(layer));
        if (count == 0) continue;
        throw NonFiniteError(std::to_string(count) + " values of tensor '" +
                             checkpoint_name(block, layout.matrix(layer).name) +
                             ".weight' do not fit float16; choose --output-dtype bfloat16 or float32");
    }
}

}  // namespace espalier
