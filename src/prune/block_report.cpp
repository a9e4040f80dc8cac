#include "src/prune/block_report.h"

namespace espalier {

Json BlockReport::to_json(const BlockLayout& layout) const {
    Json by_matrix = Json::object();
    for (const LinearLayer layer : all_linear_layers) {
        by_matrix[std::string(layout.matrix(layer).name)] = sparsity[index_of(layer)];
    }
    Json json = {{"index", block},
                 {"pruned", pruned},
                 {"seconds", seconds},
                 {"error_after_first_mask", error_after_first_mask},
                 {"error_final", error_final},
                 {"sparsity", by_matrix},
                 {"changed_mask_share", changed_mask_share},
                 {"peak_bytes", peak_bytes},
                 {"flops", flops}};
    if (!draws.empty()) {
        json["learning_rate"] = learning_rate;
        json["draws"] = draws;
        json["error_final_first_draw"] = error_final_first_draw;
    }
    return json;
}

}  // namespace espalier
