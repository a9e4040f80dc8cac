#pragma once
/// The options of `finetune`, which `plan --finetune` takes too.

#include "src/cli/drawn_calibration.h"
#include "src/cli/option_set.h"
#include "src/finetune/finetune_options.h"
#include "src/finetune/training_context.h"
#include "src/plan/finetune_plan.h"
#include "src/samples/calibration_tokens.h"
#include "src/weights/model_source.h"

#include <optional>
#include <string>
#include <vector>

namespace espalier {

/// What decides the result, but for the model, its teacher and the tokens.
std::vector<OptionSpec> training_option_specs();
/// The tokens of --data, with --continuations. Throws InputError.
RequestedTokens request_training_tokens(OptionSet& options, const ModelSource& student);
/// Checks them against the model, and fills in those that were not given. Throws InputError.
FinetuneOptions parse_training_options(OptionSet& options, const ModelSource& student, const CalibrationTokens& data);
/// Throws InputError when products of updates would not fit a GPU's tensor cores.
void check_rank_for_gpus(const FinetuneOptions& options);
/// --weights and --optimizer-state; none for auto. Throws InputError, also for a place that the device has not.
AskedPlaces parse_places(const OptionSet& options, const FinetuneOptions& parsed, bool is_gpu);
/// Whether there is a teacher, whose head is the student's. Reads both.
bool shares_head(const ModelSource& student, const ModelSource* teacher);
/// Throws InputError when a teacher is missing, not wanted, or no model of the student's shape and vocabulary.
void check_teacher(FinetuneLoss loss, const ModelSource& student, const ModelSource* teacher);

}  // namespace espalier
