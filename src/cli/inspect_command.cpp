#include "src/base/error.h"
#include "src/cli/commands.h"
#include "src/evaluate/inspection.h"
#include "src/report/progress.h"

#include <cstdio>

namespace espalier {

std::vector<OptionSpec> inspect_option_specs() {
    return {
        {"path", "run folder or model folder; may also be given as the first word, without --path", {}, false, true},
        {"model", "the dense model, to compare the tensors with that pruning must not change", {}},
        {"config", "file with lines 'name = value' that set options", {}}};
}

namespace {

void print_table(const Inspection& inspection) {
    std::printf("%-6s", "block");
    for (const MatrixShape& matrix : inspection.layout.matrices()) {
        const std::string name(matrix.name.substr(matrix.name.find('.') + 1));
        std::printf(" %10s", name.c_str());
    }
    std::printf("\n");
    for (const BlockInspection& block : inspection.blocks) {
        std::printf("%-6zu", block.block);
        for (const double share : block.zero_share) std::printf(" %9.4f%%", 100 * share);
        std::printf("   %s\n", block.pruned ? "pruned" : "not pruned");
    }
}

}  // namespace

int inspect_command(Session& session, const CommandLine& line) {
    if (print_help(session, line, "inspect", "checks the files of a run or a model, and counts their zeros",
                   inspect_option_specs()))
        return 0;
    bool sound = true;
    session.agree([&] {
        if (session.rank() != 0) return;
        std::vector<std::string> arguments = line.arguments;
        if (!arguments.empty() && !arguments.front().starts_with("-")) arguments.insert(arguments.begin(), "--path");
        const OptionSet set("inspect", inspect_option_specs(), arguments);
        Progress progress(true);
        std::optional<std::filesystem::path> dense;
        if (set.has("model")) dense = set.text("model");
        const Inspection inspection =
            inspect_model(set.text("path"), dense, [&](const std::string& text) { progress.step(text); });
        progress.live("");
        for (const std::string& remark : inspection.remarks) progress.line(remark);
        print_table(inspection);
        for (const std::string& checked : inspection.checked) std::printf("checked: %s\n", checked.c_str());
        for (const std::string& fault : inspection.faults) std::printf("FAULT: %s\n", fault.c_str());
        sound = inspection.faults.empty();
        if (!sound)
            std::printf("%zu fault(s)\n", inspection.faults.size());
        else if (inspection.checked.empty())
            std::printf(
                "neither a run nor an export: nothing to check but what can be read (--model DENSE compares)\n");
        else
            std::printf("all holds\n");
    });
    return sound ? 0 : static_cast<int>(ExitStatus::input);
}

}  // namespace espalier
