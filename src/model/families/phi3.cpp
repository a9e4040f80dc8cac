// Abdin et al. 2024 (Phi-3, Phi-4): q, k, v in one tensor, gate and up in another; Phi-4-mini rotates a part of a head.
#include "src/model/families/family.h"
#include "src/model/families/parts.h"

#include <array>

namespace espalier {

namespace {

constexpr std::array<std::string_view, 1> phi3_fields = {"partial_rotary_factor"};

void read_phi3(const ConfigFields& fields, ModelConfig& config) {
    use_rope_everywhere(fields, config, true);
    if (fields.has("sliding_window")) use_window_everywhere(fields.size("sliding_window"), config);
}

BlockLayout phi3_layout(const ModelConfig& config) {
    BlockLayout layout = gated_decoder_layout(config);
    layout.store_together("self_attn.qkv_proj", layout.attention.q, layout.attention.v);
    layout.store_together("mlp.gate_up_proj", layout.mlp.gate, layout.mlp.up);
    return layout;
}

}  // namespace

extern const Family phi3;
constinit const Family phi3 = {"phi3", read_phi3, phi3_layout, phi3_fields};

}  // namespace espalier
