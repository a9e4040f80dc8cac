#include "src/prune/block_report.h"

namespace espalier {

Json to_json(const CommunicationLedger& ledger) {
    Json json = Json::object();
    for (std::size_t verb = 0; verb < communication_verbs; ++verb) {
        const CommunicationCount& count = ledger.counts[verb];
        if (count.calls == 0) continue;
        json[std::string(verb_names[verb])] = {
            {"calls", count.calls}, {"bytes_sent", count.bytes_sent}, {"bytes_received", count.bytes_received}};
    }
    return json;
}

Json BlockReport::to_json(const BlockLayout& layout) const {
    Json by_matrix = Json::object();
    for (std::size_t m = 0; m < layout.matrices().size(); ++m) {
        by_matrix[layout.matrices()[m].name] = pruned ? sparsity[m] : 0.0;
    }
    Json seconds = Json::object(), communication = Json::object();
    for (const auto& [phase, cost] : costs) {
        seconds[phase] = cost.seconds;
        if (Json counts = espalier::to_json(cost.communication); !counts.empty()) communication[phase] = counts;
    }
    Json json = {{"index", block},
                 {"pruned", pruned},
                 {"seconds", seconds},
                 {"communication", communication},
                 {"error_after_first_mask", error_after_first_mask},
                 {"error_final", error_final},
                 {"sparsity", by_matrix},
                 {"changed_mask_share", changed_mask_share},
                 {"peak_bytes", peak_bytes},
                 {"flops", flops}};
    if (unchanged_weight_share) json["unchanged_weight_share"] = *unchanged_weight_share;
    if (!draws.empty()) {
        json["learning_rate"] = learning_rate;
        json["draws"] = draws;
        json["error_final_first_draw"] = error_final_first_draw;
    }
    if (!held_out_errors.empty()) {
        json["learning_rate"] = learning_rate;
        json["held_out_errors"] = held_out_errors;
        json["error_final_first_draw"] = error_final_first_draw;
    }
    return json;
}

WrittenReport WrittenReport::from_json(const Json& metrics) {
    WrittenReport report;
    report.pruned = metrics.at("pruned").get<bool>();
    if (metrics.contains("draws")) {
        for (const Json& round : metrics["draws"]) {
            std::vector<std::size_t>& samples = report.draws.emplace_back();
            for (const Json& sample : round) samples.push_back(sample.get<std::size_t>());
        }
    }
    if (metrics.contains("sentences")) {
        for (const Json& sentence : metrics["sentences"]) report.sentences.push_back(sentence.get<std::string>());
    }
    return report;
}

}  // namespace espalier
