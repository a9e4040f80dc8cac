// The input is config.json. What is accepted has sizes that a layout can be made of.
#include "src/model/model_config.h"

#include "src/model/block_layout.h"
#include "tests/fuzz/fuzz_target.h"

#include <cmath>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace espalier;
    only_input_errors([&] {
        const ModelConfig config = ModelConfig::parse(as_text(data, size), "config.json");
        demand(
            config.hidden_size > 0 && config.intermediate_size > 0 && config.blocks.size() > 0 && config.vocabulary > 0,
            "sizes above zero");
        demand(config.query_heads % config.key_value_heads == 0, "whole groups of query heads");
        demand(config.head_size > 0 && config.head_size % 2 == 0, "an even head size");
        demand(std::isfinite(config.rms_norm_epsilon) && config.rms_norm_epsilon > 0, "a finite positive epsilon");
        for (const BlockSpecification& block : config.blocks) {
            if (!block.rope) continue;
            demand(std::isfinite(block.rope->theta) && block.rope->theta > 0, "a finite positive theta");
            demand(std::isfinite(block.rope->factor) && block.rope->factor > 0, "a finite positive factor");
        }
        const BlockLayout layout(config);
        demand(layout.vectors().size() >= 2, "two norms");
        layout.check_group(1);
        config.check_sequence_length(16);
    });
    return 0;
}
