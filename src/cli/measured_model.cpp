#include "src/cli/measured_model.h"

#include "mpi/tensor_communicator.h"
#include "src/plan/evaluation_plan.h"

namespace espalier {

OptionSpec measured_model_option(const std::string& summary) {
    return {"model",
            summary + ": a Hugging Face folder, a finished run folder, or synthetic:NAME (see prune)",
            {},
            false,
            true};
}

MeasuredModel::MeasuredModel(Session& session, const OptionSet& options, Progress& progress)
    : session_(session), progress_(progress), source_(open_model(options.text("model"))) {
    for (const std::string& remark : source_->remarks()) progress.line(remark);
}

void MeasuredModel::prepare(const OptionSet& options) {
    if (session_.rank() == 0) source_->verify_outer();
    chosen_ = make_device(session_, options);
}

std::vector<Likelihood> MeasuredModel::measure(std::span<const PackedSequences> passes, const std::string& advice,
                                               const std::string& of_part) {
    check_devices(session_, chosen_);
    if (!chosen_.note.empty()) progress_.line(chosen_.note);
    chosen_.note.clear();  // once is enough
    MemoryPlan memory;
    session_.agree([&] {
        if (!chosen_.is_gpu) return;  // a CPU has what the host has
        const PlannedEvaluation planned{*source_, passes, static_cast<std::size_t>(session_.size()), advice};
        memory =
            plan_evaluation_memory(planned, static_cast<std::size_t>(session_.rank()), counting_model(*chosen_.device));
    });
    const std::string of_host_memory = note_about_host_memory(session_.world(), memory);
    if (!of_host_memory.empty()) progress_.line(of_host_memory);
    const TensorCommunicator tensors(session_.world(), *chosen_.device);
    const SayProgress step = [&](const std::string& text) { progress_.step(of_part + text); };
    return measure_likelihoods({.device = *chosen_.device,
                                .group = tensors.get(),
                                .control = session_.world(),
                                .source = *source_,
                                .hidden_states = memory.hidden_states,
                                .progress = step},
                               passes);
}

}  // namespace espalier
