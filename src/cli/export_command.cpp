#include "src/base/error.h"
#include "src/cli/commands.h"
#include "src/report/progress.h"
#include "src/weights/export_folder.h"

namespace espalier {

std::vector<OptionSpec> export_option_specs() {
    return {{"run", "finished run folder", {}, false, true},
            {"output", "Hugging Face folder to write", {}, false, true},
            {"model", "the dense model, if it is no longer where the run read it", {}},
            {"config", "file with lines 'name = value' that set options", {}}};
}

int export_command(Session& session, const CommandLine& line) {
    if (print_help(session, line, "export", "writes a run as a Hugging Face folder", export_option_specs())) return 0;
    session.agree([&] {
        if (session.rank() != 0) return;
        const OptionSet set("export", export_option_specs(), line.arguments);
        Progress progress(true);
        std::optional<std::filesystem::path> dense;
        if (set.has("model")) dense = set.text("model");
        std::filesystem::path output = set.text("output");
        if (!output.has_filename()) output = output.parent_path();
        const std::vector<std::string> remarks =
            export_run(set.text("run"), output, dense, [&](const std::string& text) { progress.step(text); });
        for (const std::string& remark : remarks) progress.line(remark);
        progress.line("exported to " + output.string());
    });
    return 0;
}

}  // namespace espalier
