#include "io/drawn_tokens.h"
#include "io/hub_cache.h"
#include "src/base/error.h"
#include "src/weights/checkpoint_source.h"
#include "src/weights/finetune_manifest.h"
#include "src/weights/finetuned_source.h"
#include "src/weights/run_source.h"
#include "src/weights/synthetic_source.h"

namespace espalier {

std::unique_ptr<ModelSource> open_model(const std::filesystem::path& path) {
    if (SyntheticSource::is_named(path)) return std::make_unique<SyntheticSource>(path.string());
    const RunFolder run(path);
    if (FinetuneManifest::is_in(run)) return std::make_unique<FinetunedSource>(path);
    if (run.has_manifest()) return std::make_unique<RunSource>(path);
    if (run.pruned().has_manifest()) {
        throw InputError(path.string() + " is not finished: what it has pruned is in " + run.pruned().path().string() +
                         "; run its command again to go on");
    }
    return std::make_unique<CheckpointSource>(path);
}

void refuse_output_in(const std::filesystem::path& output, const ModelSource& source, const std::string& option) {
    for (const std::filesystem::path& folder : source.folders()) {
        std::error_code unknown;
        if (!std::filesystem::equivalent(folder, output, unknown)) continue;
        throw InputError("--output " + output.string() + " is " +
                         (folder == source.path() ? option + " itself" : "what " + option + " is built on") +
                         "; choose another folder");
    }
}

void refuse_other_snapshot(const std::filesystem::path& output, const std::filesystem::path& of_run,
                           const std::filesystem::path& now, const std::string& option) {
    const std::string old_commit = snapshot_commit(of_run), commit = snapshot_commit(now);
    if (old_commit.empty() || commit.empty() || old_commit == commit) return;
    throw InputError("--output " + output.string() + " holds a run of the model's snapshot " + old_commit +
                     ", not of " + commit + "; give " + option + " " + of_run.string() +
                     " to go on, or --fresh to start over");
}

void refuse_tokens_in(const std::filesystem::path& output, const std::filesystem::path& tokens,
                      const std::string& option) {
    std::error_code unknown;
    if (!std::filesystem::exists(tokens, unknown)) return;
    if (std::filesystem::weakly_canonical(tokens).parent_path() != std::filesystem::weakly_canonical(output)) return;
    throw InputError(option + " " + tokens.string() + " lies in --output " + output.string() +
                     ", where it belongs to a run; copy it to another place");
}

std::string lasting_name(const std::filesystem::path& path) {
    const bool made_up = SyntheticSource::is_named(path) || names_drawn_tokens(path.string());
    return made_up ? path.string() : std::filesystem::absolute(path).string();
}

}  // namespace espalier
