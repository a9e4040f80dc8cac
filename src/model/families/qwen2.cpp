// Yang et al. 2024 (Qwen2, Qwen2.5): biases of queries, keys and values.
#include "src/model/families/family.h"
#include "src/model/families/parts.h"

namespace espalier {

namespace {

void read_qwen2(const ConfigFields& fields, ModelConfig& config) {
    use_rope_everywhere(fields, config);
    for (BlockSpecification& block : config.blocks) block.qkv_bias = true;
    use_window_everywhere(read_sliding_window(fields, config, false), config);
}

}  // namespace

extern const Family qwen2;
constinit const Family qwen2 = {"qwen2", read_qwen2, llama_layout};

}  // namespace espalier
