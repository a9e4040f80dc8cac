#pragma once
/// The last stage of a run of `prune`, when it is asked for: the pruned model is trained further as a whole, towards
/// the dense one, by `espalier finetune --train masked --loss kl`. What was pruned lies in a folder of the run, and the
/// run is one of fine-tuning on it.

#include "src/cli/commands.h"
#include "src/cli/device_options.h"
#include "src/cli/drawn_calibration.h"
#include "src/cli/option_set.h"
#include "src/finetune/finetune_options.h"
#include "src/plan/finetune_plan.h"
#include "src/samples/calibration_tokens.h"
#include "src/weights/model_source.h"

#include <filesystem>
#include <string>
#include <vector>

namespace espalier {

/// --finetune-epochs and what belongs to it.
std::vector<OptionSpec> finetune_stage_option_specs();

/// Whether there is such a stage.
bool has_finetune_stage(const OptionSet& options);

/// The command line of the stage of a run in `output`: it trains with the samples that were asked for and with others
/// that go on from them. Tokens that are drawn lie beside what was pruned.
CommandLine command_of_finetune_stage(const OptionSet& options, const ModelSource& dense,
                                      const std::filesystem::path& output, const RequestedTokens& tokens);

/// What the stage will do after a calibration of which only the shape is looked at. Throws InputError when it could
/// not.
FinetuneOptions options_of_finetune_stage(const CommandLine& line, const ModelSource& dense,
                                          const RequestedTokens& calibration);

/// Checks the folder of a run that will have the stage, and makes it; when it is to be started anew, removes what was
/// trained. Throws InputError when it holds anything else.
void prepare_for_finetune_stage(const std::filesystem::path& output, const ModelSource& dense, bool fresh);

/// Throws InputError when `output`, of a run that does not begin with what it prunes itself, has begun as one that
/// does.
void refuse_pruned_inside(const std::filesystem::path& output);

/// What the stage will take.
FinetunePlan plan_finetune_stage(const FinetuneOptions& options, const ModelSource& dense, std::size_t ranks,
                                 const DeviceModel& device);

/// Before anything is pruned: throws ResourceError when the stage would not fit this rank's GPU, or what a CPU keeps in
/// a file not the disk of `output`, whose folder is there.
void check_room_for_finetune_stage(const Session& session, const ChosenDevice& chosen, const FinetuneOptions& options,
                                   const ModelSource& dense, const std::filesystem::path& output);

}  // namespace espalier
