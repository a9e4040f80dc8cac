#include "src/weights/model_source.h"

#include "kernels/device_numbers.h"
#include "src/base/error.h"

#include <algorithm>

namespace espalier {

ModelSource::ModelSource(std::string config_text, const std::string& config_source)
    : config_text_(std::move(config_text)),
      config_(ModelConfig::parse(config_text_, config_source)),
      layout_(config_) {}

std::vector<std::string> ModelSource::remarks() const {
    std::vector<std::string> lines;
    for (const std::string& note : notes_) lines.push_back("note: " + note);
    for (const std::string& warning : warnings_) lines.push_back("warning: " + warning);
    return lines;
}

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
