#pragma once
/// A whole pruning run of a tiny model into a run folder, as the prune command does it.

#include "mpi/session.h"
#include "src/prune/pipeline.h"
#include "tests/support/random.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/test_device.h"
#include "tests/support/tiny_model.h"

#include <filesystem>

namespace espalier::support {

/// Options of a run over 6 samples of 8 tokens.
inline PruneOptions tiny_options(const std::filesystem::path& model, const std::filesystem::path& output,
                                 Method method) {
    PruneOptions options;
    options.model = model;
    options.calibration = "tokens.npy";
    options.output = output;
    options.method = method;
    options.samples = 6;
    options.sequence_length = 8;
    options.shards = 3;
    options.ro.samples = 3;
    options.ro.rounds = 2;
    options.ro.learning_rate = 1e-4;
    return options;
}

inline CalibrationTokens tiny_tokens(const PruneOptions& options, std::size_t vocabulary) {
    Random random(5);
    CalibrationTokens tokens{{}, options.samples, options.sequence_length};
    for (std::size_t i = 0; i < options.samples * options.sequence_length; ++i) {
        tokens.ids.push_back(static_cast<std::int32_t>(random.below(vocabulary)));
    }
    return tokens;
}

/// Prunes `options.model` to `options.output` in this process alone.
inline void prune_to_folder(Session& session, const PruneOptions& options) {
    const auto device = make_test_device(1);
    const auto source = open_model(options.model);
    Progress progress(false);
    RunFacts facts;
    facts.command_line = "espalier prune";
    facts.options_with_origins = Json::object();
    facts.device = device->description();
    facts.calibration_sha256 = "tokens";
    RunLedger ledger(options, *source, facts, progress);
    ledger.start_outer_file(*source);
    const CalibrationTokens tokens = tiny_tokens(options, source->config().vocabulary);
    const RunState state = ledger.state();
    static_cast<void>(prune_model({.session = session,
                                   .device = *device,
                                   .options = options,
                                   .source = *source,
                                   .calibration = tokens,
                                   .hidden_states = StoragePlace::device,
                                   .ledger = &ledger,
                                   .state = state,
                                   .block_attributes = ledger.block_attributes(),
                                   .progress = progress}));
    ledger.finish(1);
}

}  // namespace espalier::support
