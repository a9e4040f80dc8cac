// Jiang et al. 2023: grouped queries, no biases, a window in every block where one is named.
#include "src/model/families/family.h"
#include "src/model/families/parts.h"

namespace espalier {

namespace {

void read_mistral(const ConfigFields& fields, ModelConfig& config) {
    if (!fields.has("num_key_value_heads")) fields.fail("num_key_value_heads", "Mistral models must state it");
    use_rope_everywhere(fields, config);
    if (fields.has("sliding_window")) use_window_everywhere(fields.size("sliding_window"), config);
}

}  // namespace

extern const Family mistral;
constinit const Family mistral = {"mistral", read_mistral, llama_layout};

}  // namespace espalier
