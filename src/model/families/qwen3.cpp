// Yang et al. 2025: norms of each head's queries and keys.
#include "src/model/families/family.h"
#include "src/model/families/parts.h"

#include <array>

namespace espalier {

namespace {

constexpr std::array<std::string_view, 4> qwen3_fields = {"qk_norm", "use_qk_norm", "qk_layernorm",
                                                          "use_query_key_norm"};

void read_qwen3(const ConfigFields& fields, ModelConfig& config) {
    use_rope_everywhere(fields, config);
    for (BlockSpecification& block : config.blocks) block.head_norm = HeadNorm::each_head;
    read_biases(fields, config, false);
    use_window_everywhere(read_sliding_window(fields, config, false), config);
}

}  // namespace

extern const Family qwen3;
constinit const Family qwen3 = {"qwen3", read_qwen3, llama_layout, qwen3_fields};

}  // namespace espalier
