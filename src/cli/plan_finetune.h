#pragma once
/// `plan --finetune`: the options of `finetune`, and the devices to plan for.

#include "src/cli/commands.h"

namespace espalier {

int plan_finetune(Session& session, const CommandLine& line);

}  // namespace espalier
