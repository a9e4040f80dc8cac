// OLMo 2 (OLMo et al. 2024): norms of what attention and MLP give, and of all queries and all keys together.
#include "src/model/families/family.h"
#include "src/model/families/parts.h"

namespace espalier {

namespace {

void read_olmo2(const ConfigFields& fields, ModelConfig& config) {
    use_rope_everywhere(fields, config);
    for (BlockSpecification& block : config.blocks) {
        block.norms = NormPlacement::after;
        block.head_norm = HeadNorm::all_heads;
    }
    read_biases(fields, config, false);
}

}  // namespace

extern const Family olmo2;
constinit const Family olmo2 = {"olmo2", read_olmo2, llama_layout};

}  // namespace espalier
