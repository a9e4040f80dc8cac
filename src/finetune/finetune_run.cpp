#include "src/finetune/finetune_run.h"

#include "src/base/error.h"
#include "src/base/stop_request.h"
#include "src/base/units.h"
#include "src/finetune/trained_files.h"
#include "src/finetune/training_step.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <optional>

namespace espalier {

namespace {

/// Unless --checkpoint-steps says otherwise: so much work is lost at most, and a checkpoint of all weights of a small
/// model takes as long as some steps.
constexpr double seconds_between_checkpoints = 600;

class FinetuneRun {
  public:
    explicit FinetuneRun(const FinetuneRunContext& context)
        : c_(context),
          t_(context.training),
          options_(context.training.options),
          progress_(context.state.progress),
          checkpointed_(progress_.steps.size()),
          flops_before_(context.training.device.flops()),
          values_(context.training),
          files_(context.training, context.run, context.host_threads) {
        const auto say = [&](const std::string& text) { c_.progress.step(text); };
        outer_ = std::make_unique<OuterWeights>(t_.device, t_.group, t_.student, OuterWeights::Parts::all);
        if (t_.teacher != nullptr) teacher_ = std::make_unique<TeacherStates>(t_, *outer_, say);
        say("reading the model");
        values_.start_end(outer_->final_norm());
        student_ = std::make_unique<StudentWeights>(t_, values_);
        if (!c_.state.checkpoint.empty()) {
            files_.read_checkpoint(c_.state.checkpoint, values_);
            values_have_changed();
        }
        step_ = std::make_unique<TrainingStep>(t_, *outer_, *student_, values_, teacher_.get());
    }

    bool run() {
        since_start_.lap();  // reading and the teacher are done
        while (true) {
            const std::size_t done = progress_.steps.size();
            if (is_due(done)) look(done);
            if (done == options_.steps || is_out_of_patience()) break;
            const Wishes wishes = wishes_of_all(done);
            if (wishes.checkpoint || (wishes.stop && done != checkpointed_)) checkpoint(done);
            if (wishes.stop) {
                if (c_.ledger != nullptr) c_.ledger->note_stop(done);
                return false;
            }
            take(done);
        }
        finish();
        return true;
    }

  private:
    void values_have_changed() {
        values_.gather_end(outer_->final_norm());
        student_->refresh();
    }
    bool is_due(std::size_t done) const {
        if (options_.held_out == 0) return false;
        if (!progress_.looks.empty() && progress_.looks.back().steps == done) return false;
        return done % options_.evaluate_steps == 0 || done == options_.steps;
    }
    bool is_out_of_patience() const {
        return options_.patience > 0 && progress_.looks_since_best() >= options_.patience;
    }
    struct Wishes {
        bool stop = false, checkpoint = false;
    };
    /// Between two steps: any rank may have been asked to stop; the first one has the clock for checkpoints.
    Wishes wishes_of_all(std::size_t done) const {
        Wishes mine;
        mine.stop = stop_requested();
        const std::size_t every = options_.checkpoint_steps;
        const bool is_new = done > checkpointed_;
        mine.checkpoint =
            is_new && (every > 0 ? done % every == 0 : since_checkpoint_.seconds() > seconds_between_checkpoints);
        const std::vector<Wishes> all = t_.control.all_gather_value(mine);
        return {std::ranges::any_of(all, &Wishes::stop), all.front().checkpoint};
    }

    void look(std::size_t done) {
        const MeanLoss loss = step_->measure(held_out_samples(options_));
        refuse_nonfinite(loss.total(options_.loss_weights()));
        progress_.looks.push_back({done, loss.language_model, loss.divergence, loss.total(options_.loss_weights())});
        const bool better = progress_.best_look() == progress_.looks.size() - 1;
        if (better) values_.keep_best();
        if (c_.ledger != nullptr) c_.ledger->record_look(progress_.looks.back());
        c_.progress.line(fmt::format("{} of {} steps: held-out loss {:.4f}{}{}", done, options_.steps,
                                     progress_.looks.back().total, better && done > 0 ? ", the best so far" : "",
                                     time_left(done)));
    }
    static void refuse_nonfinite(double loss) {
        if (!std::isfinite(loss))
            throw NonFiniteError("loss or gradients are not finite; a smaller --learning-rate may help");
    }
    std::string time_left(std::size_t done) const {
        const std::size_t here = done - c_.state.progress.steps.size();
        if (here == 0) return {};
        const double seconds = since_start_.seconds() / static_cast<double>(here);
        return fmt::format("; {} a step, {} left", format_seconds(seconds),
                           format_seconds(seconds * static_cast<double>(options_.steps - done)));
    }

    void take(std::size_t done) {
        const Stopwatch stopwatch;
        const TrainingStep::Result result = step_->take(samples_of_step(options_, done), done + 1);
        refuse_nonfinite(result.loss.total(options_.loss_weights()) + result.gradient_norm);
        progress_.steps.push_back({result.loss.language_model, result.loss.divergence, result.gradient_norm});
        if (c_.ledger != nullptr) c_.ledger->record_step(done + 1, progress_.steps.back(), stopwatch.seconds());
        c_.progress.step(fmt::format("step {} of {}: loss {:.4f}", done + 1, options_.steps,
                                     result.loss.total(options_.loss_weights())));
    }

    void checkpoint(std::size_t done) {
        c_.progress.step("writing a checkpoint");
        const UnitRecords records = files_.write_checkpoint(done, values_);
        const std::vector<double> flops = t_.control.all_gather_value(t_.device.flops() - flops_before_);
        if (c_.ledger != nullptr) {
            c_.ledger->commit_checkpoint(done, progress_, records, std::accumulate(flops.begin(), flops.end(), 0.0));
        }
        checkpointed_ = done;
        since_checkpoint_ = Stopwatch();
    }

    void finish() {
        if (options_.held_out > 0) values_.restore_best();
        const UnitRecords records = files_.write_result(values_, c_.attributes);
        struct Costs {
            double flops;
            std::size_t peak, resident;
        };
        const std::vector<Costs> of_ranks = t_.control.all_gather_value(
            Costs{t_.device.flops() - flops_before_, t_.device.memory().peak(), peak_resident_bytes()});
        if (c_.ledger == nullptr) return;
        FinetuneCosts costs;
        for (std::size_t unit = 0; unit < values_.units(); ++unit) costs.trained_values += values_.layout(unit).size();
        for (const Costs& of_rank : of_ranks) {
            costs.flops += of_rank.flops;
            costs.peak_bytes = std::max(costs.peak_bytes, of_rank.peak);
            costs.peak_resident_bytes = std::max(costs.peak_resident_bytes, of_rank.resident);
        }
        c_.ledger->finish(progress_, records, costs);
    }

    const FinetuneRunContext& c_;
    const TrainingContext& t_;
    const FinetuneOptions& options_;
    FinetuneProgress progress_;
    std::size_t checkpointed_;  ///< steps that the last checkpoint holds
    double flops_before_;       ///< of tokens that were drawn
    TrainedValues values_;
    TrainedFiles files_;
    std::unique_ptr<OuterWeights> outer_;
    std::unique_ptr<TeacherStates> teacher_;
    std::unique_ptr<StudentWeights> student_;
    std::unique_ptr<TrainingStep> step_;
    Stopwatch since_start_, since_checkpoint_;
};

}  // namespace

bool finetune_model(const FinetuneRunContext& context) {
    std::optional<FinetuneRun> run;
    try {
        run.emplace(context);
        return run->run();
    } catch (...) {
        // While it still stands: its end waits for what is under way, and the other ranks would wait with it.
        if (context.session.size() > 1) context.session.fail(as_error(std::current_exception()));
        throw;
    }
}

}  // namespace espalier
