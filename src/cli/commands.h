#pragma once
/// The sub-commands. Each parses its options, does its work over the session's ranks and returns an exit status; errors
/// are thrown.

#include "mpi/session.h"
#include "src/cli/option_set.h"

#include <string>
#include <vector>

namespace espalier {

struct CommandLine {
    std::vector<std::string> arguments;  ///< after the sub-command
    std::string text;                    ///< the whole line, for manifests
    /// Options are taken from the environment, too; not by a command that another one calls for its last part.
    bool reads_environment = true;
};

int prune_command(Session& session, const CommandLine& line);
int finetune_command(Session& session, const CommandLine& line);
int evaluate_command(Session& session, const CommandLine& line);
int score_command(Session& session, const CommandLine& line);
int generate_command(Session& session, const CommandLine& line);
int inspect_command(Session& session, const CommandLine& line);
int export_command(Session& session, const CommandLine& line);
int plan_command(Session& session, const CommandLine& line);
int doctor_command(Session& session, const CommandLine& line);
// What each of them takes.
std::vector<OptionSpec> prune_option_specs();
std::vector<OptionSpec> finetune_option_specs();
std::vector<OptionSpec> evaluate_option_specs();
std::vector<OptionSpec> score_option_specs();
std::vector<OptionSpec> generate_option_specs();
std::vector<OptionSpec> inspect_option_specs();
std::vector<OptionSpec> export_option_specs();
std::vector<OptionSpec> plan_option_specs();
std::vector<OptionSpec> doctor_option_specs();

/// True when --help was asked for; the help is then printed on rank 0.
bool print_help(Session& session, const CommandLine& line, const std::string& command, const std::string& summary,
                const std::vector<OptionSpec>& specs);

}  // namespace espalier
