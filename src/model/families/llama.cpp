// Touvron et al. 2023 and the many models of its form (SmolLM2, TinyLlama, OpenLLaMA, DeepSeek's dense ones).
#include "src/model/families/family.h"
#include "src/model/families/parts.h"

namespace espalier {

namespace {

void read_llama(const ConfigFields& fields, ModelConfig& config) {
    use_rope_everywhere(fields, config);
    read_biases(fields, config, true);
    use_window_everywhere(read_sliding_window(fields, config, true), config);
}

}  // namespace

extern const Family llama;
constinit const Family llama = {"llama", read_llama, llama_layout};

}  // namespace espalier
