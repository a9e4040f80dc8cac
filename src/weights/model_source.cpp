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

void refuse_nonfinite_weights(Device& device, const BlockLayout& layout, std::size_t block,
                              const BlockWeights& weights) {
    struct Checked {
        std::string name;
        TensorView values;
    };
    std::vector<Checked> checked;
    checked.reserve(layout.matrices().size() + layout.vectors().size());
    for (const LinearLayer layer : layout.linear_layers()) {
        checked.push_back({layout.weight_name(block, layer), weights.matrices.matrix(layer)});
    }
    for (std::size_t v = 0; v < layout.vectors().size(); ++v) {
        checked.push_back({layout.tensor_name(block, layout.vectors()[v].name), weights.vector(BlockVector{v})});
    }
    const DeviceCounters counters(device, checked.size());
    for (std::size_t i = 0; i < checked.size(); ++i) device.count_nonfinite(checked[i].values, counters.at(i));
    const std::vector<std::uint64_t> counts = counters.read();
    for (std::size_t i = 0; i < checked.size(); ++i) {
        if (counts[i] == 0) continue;
        throw InputError("tensor '" + checked[i].name + "' holds " + std::to_string(counts[i]) + " of " +
                         std::to_string(checked[i].values.size()) + " values that are infinite or not a number");
    }
}

void refuse_overflow(Device& device, const BlockLayout& layout, DType dtype, std::size_t block,
                     const BlockWeights& weights) {
    if (dtype != DType::f16) return;
    const DeviceCounters counters(device, layout.matrices().size());
    for (const LinearLayer layer : layout.linear_layers()) {
        device.count_nonfinite(weights.matrices.matrix(layer), counters.at(index_of(layer)));
    }
    const std::vector<std::uint64_t> counts = counters.read();
    for (const LinearLayer layer : layout.linear_layers()) {
        if (counts[index_of(layer)] == 0) continue;
        throw NonFiniteError(std::to_string(counts[index_of(layer)]) + " values of tensor '" +
                             layout.weight_name(block, layer) +
                             "' do not fit float16; choose --output-dtype bfloat16 or float32");
    }
}

}  // namespace espalier
