#pragma once
/// Exceptions that carry the exit status of the program. Their text is the one sentence that the user reads: it names
/// the file, field or tensor, what was found and what was expected.

#include <stdexcept>
#include <string>

namespace espalier {

enum class ExitStatus : int {
    success = 0,
    bug = 1,        ///< an assumption inside the program did not hold
    input = 2,      ///< wrong usage, or a file that cannot be used
    resources = 3,  ///< memory or disk ran out
};

class Error : public std::runtime_error {
  public:
    Error(ExitStatus status, const std::string& sentence) : std::runtime_error(sentence), status_(status) {}
    ExitStatus status() const { return status_; }

  private:
    ExitStatus status_;
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

/// Throws BugError unless `condition` holds. For contracts between our own functions, never for user input.
inline void require(bool condition, const char* contract) {
    if (!condition) throw BugError(std::string("internal error: ") + contract);
}

}  // namespace espalier
