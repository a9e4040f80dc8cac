#pragma once
/// A plan as tables for people and as JSON for programs.

#include "src/base/json.h"
#include "src/plan/run_plan.h"

#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace espalier {

/// Best plans by number of ranks; none where nothing fits.
using PlanTable = std::vector<std::pair<std::size_t, std::optional<RunPlan>>>;

/// Memory by item, time by phase with what bounds it, bytes and flops.
std::string describe(const RunPlan& plan, const RunTotals& totals, const DeviceModel& device);
std::string describe(const PlanTable& table);

Json to_json(const RunPlan& plan);
Json to_json(const RunTotals& totals);
Json to_json(const PlanTable& table);

}  // namespace espalier
