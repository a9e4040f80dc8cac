#pragma once
/// Exceptions that carry the exit status of the program. Their text is the one sentence that the user reads: it names
/// the file, field or tensor, what was found and what was expected.

#include <exception>
#include <optional>
#include <stdexcept>
#include <string>

namespace espalier {

enum class ExitStatus : int {
    success = 0,
    bug = 1,           ///< an assumption inside the program did not hold
    input = 2,         ///< wrong usage, or a file that cannot be used
    resources = 3,     ///< memory or disk ran out
    interrupted = 75,  ///< stopped by a signal, all finished work saved (EX_TEMPFAIL): the same command goes on
};

class Error : public std::runtime_error {
  public:
    Error(ExitStatus status, const std::string& sentence, std::optional<int> rank = {})
        : std::runtime_error(sentence), status_(status), rank_(rank) {}
    ExitStatus status() const { return status_; }
    /// The rank that failed, when another one throws in its name.
    std::optional<int> rank() const { return rank_; }

  private:
    ExitStatus status_;
    std::optional<int> rank_;
};

/// The command line, the environment or an input file is wrong.
struct InputError : Error {
    explicit InputError(const std::string& sentence) : Error(ExitStatus::input, sentence) {}
};

/// The machine ran out of something: memory, disk, file handles.
struct ResourceError : Error {
    explicit ResourceError(const std::string& sentence) : Error(ExitStatus::resources, sentence) {}
};

/// Weights, activations or scores became infinite or not a number. Always thrown by all ranks of a group together.
struct NonFiniteError : InputError {
    explicit NonFiniteError(const std::string& sentence) : InputError(sentence) {}
};

/// An internal contract was broken; the sentence goes into a bug report.
struct BugError : Error {
    explicit BugError(const std::string& sentence) : Error(ExitStatus::bug, sentence) {}
};

/// Any exception as the Error that the user is told: files that cannot be reached are wrong input, memory is a
/// resource, everything else is a bug.
Error as_error(const std::exception_ptr& failure);

/// "espalier: rank 3: SENTENCE" (`rank` empty: without the rank) as one line of bounded length: names out of files may
/// hold anything.
std::string error_line(const Error& error, std::optional<int> rank);

/// Throws BugError unless `condition` holds. For contracts between our own functions, never for user input.
inline void require(bool condition, const char* contract) {
    if (!condition) throw BugError(std::string("internal error: ") + contract);
}

}  // namespace espalier
