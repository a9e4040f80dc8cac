#pragma once
/// What a run measures on one block while it prunes it: `blocks` entries of metrics.json.

#include "src/base/json.h"
#include "src/blocks/phase_clock.h"
#include "src/model/block_layout.h"

#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace espalier {

/// {"exchange": {"calls": 7, "bytes_sent": 1024, "bytes_received": 1024}, …}, verbs that were not used left out.
Json to_json(const CommunicationLedger& ledger);

struct BlockReport {
    std::size_t block = 0;
    bool pruned = true;
    std::map<std::string, PhaseCost> costs;  ///< by phase, of the rank that reports
    double error_final = 0;                  ///< sum ||f - f0||^2 / sum ||f0||^2 over all samples, weights as written;
                                             ///< f0: what the block is to give, of the dense model with a dense stream
    double error_after_first_mask = 0;  ///< the same before an optimisation; over the first draw, or what is held out
    double error_final_first_draw = 0;  ///< of the weights as written over those samples, to compare with it
    std::vector<double> sparsity;       ///< by matrix
    double changed_mask_share = 0;      ///< decisions of the first mask that the last one reversed
    std::optional<double> unchanged_weight_share;  ///< of the survivors, after rounding (rounding_loss.h)
    std::size_t peak_bytes = 0;                    ///< device memory, most of any rank
    double flops = 0;                              ///< of all ranks
    double learning_rate = 0;                      ///< of the optimiser; 0 when there is none
    std::vector<double> held_out_errors;           ///< of a reconstruction: at its start and after each epoch
    std::vector<std::vector<std::size_t>> draws;   ///< samples of each round, in drawing order

    Json to_json(const BlockLayout& layout) const;
};

/// What rank 0 needs of the metrics of a block that a rank has written, which come as JSON.
struct WrittenReport {
    bool pruned = true;
    std::vector<std::vector<std::size_t>> draws;  ///< of each round
    std::vector<std::string> sentences;           ///< for the log

    static WrittenReport from_json(const Json& metrics);
};

}  // namespace espalier
