#include "src/cli/help_texts.h"

#include "src/cli/commands.h"

#include <algorithm>
#include <cstdio>
#include <map>

namespace espalier {

std::string explanation_of(const std::string& command) {
    static const std::map<std::string, std::string> explanations = {
        {"prune",
         R"(Writes a run folder with one HDF5 file for each decoder block. A run that was interrupted goes on where
it stopped when the same command is given again. Options that the chosen method does not use are
accepted, and a note in the log names them.

Examples:
  espalier prune --model DIR --calibration calibration.h5 --output RUN --ro-learning-rate auto
  espalier prune --model DIR --calibration calibration.h5 --output RUN --method wanda --pattern 4:8
  espalier prune --model synthetic:llama-tiny --calibration synthetic:8x64 --output RUN
  mpirun -n 2 espalier prune --model DIR --calibration calibration.h5 --output RUN --ro-batch 2

Instead of a model folder, synthetic:NAME takes random weights, to try out speed and memory without a
checkpoint: llama-2-7b, llama-2-13b, llama-2-70b, llama-3.1-8b, mistral-7b, qwen2.5-72b or llama-tiny.
synthetic:llama-2-70b:4 has only the first four blocks.
)"},
        {"finetune",
         R"(Trains a model that was pruned, and keeps what is zero at zero: only --train lora fills the zeros. Writes a
run folder with what was trained; evaluate, score, inspect and export take it as a model. The last
samples of the file are held out, and what was best on them is what comes out. A run that was interrupted
goes on from its last checkpoint when the same command is given again, on any number of ranks.

Examples:
  espalier finetune --model RUN --data calibration.h5 --output TUNED --loss kl --teacher DIR
  espalier finetune --model RUN --data calibration.h5 --output TUNED --train masked --epochs 2
  mpirun -n 2 espalier finetune --model RUN --data calibration.h5 --output TUNED --targets q_proj,v_proj
)"},
        {"evaluate",
         R"(Cuts the text into windows of --sequence-length tokens that do not overlap, and prints the perplexity
of the model on them. Compare only perplexities that were measured with the same windows.

Examples:
  espalier evaluate --model RUN --tokens evaluation.h5
  espalier evaluate --model DIR --tokens evaluation.h5 --sequence-length 512 --json
)"},
        {"score", R"(Reads contexts and continuations, which jobs/prepare_requests.py makes of the items of tasks, and
writes how likely the model finds each continuation. jobs/task_report.py makes accuracies of it.

Examples:
  espalier score --model RUN --requests cloze.h5 --output pruned.json
  mpirun -n 2 espalier score --model DIR --requests cloze.h5 --output dense.json
)"},
        {"generate",
         R"(Draws tokens from the model itself, one after the other, at random as the model finds them likely: text to
calibrate with where there is no corpus, or with --prompts what a model says, before and after pruning
(jobs/continue_text.py shows it). A token depends on the model, the options and the number of its
sample, and not on the number of ranks. Ranks draw samples of their own; where one cannot hold the model,
several share it.

Examples:
  espalier generate --model DIR --samples 16 --sequence-length 64 --output own.h5
  mpirun -n 2 espalier generate --model RUN --samples 16 --sequence-length 64 --output own.h5 --begin vocabulary
)"},
        {"inspect", R"(Reads a run or a model folder and counts the zeros of every matrix. Of a run it also checks the
checksum of every file and that every group of the pattern is exact. The exit status is 2 when
something is wrong.

Examples:
  espalier inspect RUN
  espalier inspect RUN --model DIR
)"},
        {"export",
         R"(Writes a Hugging Face folder with the names, the shards and the tokenizer of the dense model, which
transformers loads like any other. Removed weights are zeros in it. Of a run of finetune the folder holds
the merged weights; updates of --train lora would fill the zeros, and are written as an adapter.

Examples:
  espalier export --run RUN --output PRUNED
  espalier export --run LORA --output ADAPTER --adapter --base PRUNED
)"},
        {"plan", R"(Foresees what `espalier prune` would need with the same options: memory, time, bytes read, written
and sent, and what each phase waits for. It computes nothing and needs no GPU. With --evaluate it foresees
`espalier evaluate`, with --finetune `espalier finetune`, whose options it then takes.

Examples:
  espalier plan --model DIR --calibration calibration.h5 --gpu cpu
  espalier plan --model synthetic:llama-2-70b --ranks 8 --ro-batch 8 --gpu h100
  espalier plan --model DIR --table
  espalier plan --model DIR --evaluate evaluation.h5 --ranks 4
  espalier plan --finetune --model synthetic:llama-2-70b --ranks 8 --gpu h100 --loss kl
)"},
        {"doctor", R"(Prints which processors, GPUs and MPI are found, what a run would use, and how fast it is. Started
on several ranks it measures the network between them too.

Examples:
  espalier doctor
  espalier doctor --rates rates.json
)"}};
    const auto found = explanations.find(command);
    return found == explanations.end() ? std::string() : found->second + "\n";
}

std::string general_help() {
    return R"(
Exit status:
  0   done
  1   a bug in Espalier: please report it
  2   wrong input: an option, a file or a model; or `inspect` found something wrong
  3   not enough memory or disk space
  75  stopped between two blocks (finetune: two steps, after a checkpoint) by SIGTERM, SIGUSR1 or Ctrl-C;
      the same command continues. A second Ctrl-C ends at once. Under mpirun send SIGUSR1 to mpirun
      itself: at SIGTERM and Ctrl-C it ends its ranks, and what is unfinished is lost

Environment:
  ESPALIER_NAME                    sets the option --name: ESPALIER_RO_BATCH=4 is --ro-batch 4
  ESPALIER_COMMUNICATION_DEADLINE  seconds to wait for another rank before all end [default: 21600]
  OMP_NUM_THREADS                  threads of each rank, when --threads is not given
  OPENBLAS_CORETYPE                which kernels OpenBLAS uses. With Haswell, machines with different
                                   processors compute the same digits
)";
}

bool print_help(Session& session, const CommandLine& line, const std::string& command, const std::string& summary,
                const std::vector<OptionSpec>& specs) {
    for (const char* const word : {"--help", "-h"}) {
        if (std::find(line.arguments.begin(), line.arguments.end(), word) == line.arguments.end()) continue;
        if (session.rank() == 0) {
            std::fputs(OptionSet::help(command, summary, explanation_of(command), specs).c_str(), stdout);
        }
        return true;
    }
    return false;
}

}  // namespace espalier
