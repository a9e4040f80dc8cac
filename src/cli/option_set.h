#pragma once
/// Options of one sub-command from four places: command line > ESPALIER_… environment > --config file > defaults. The
/// only header, with its .cpp, that knows Boost.Program_options.

#include "src/base/json.h"

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace espalier {

/// One option. A switch has no value; without a default an absent option is simply not there.
struct OptionSpec {
    std::string name;
    std::string help;
    std::optional<std::string> default_value;
    bool is_switch = false;
    bool required = false;
};

class OptionSet {
  public:
    /// Parses `arguments` (without program and sub-command). Throws InputError with one sentence: unknown option,
    /// missing value, option given twice, wrong config file, missing required option.
    OptionSet(const std::string& command, std::vector<OptionSpec> specs, const std::vector<std::string>& arguments,
              bool reads_environment = true);

    /// The text of --help.
    static std::string help(const std::string& command, const std::string& summary, const std::string& explanation,
                            const std::vector<OptionSpec>& specs);

    bool has(const std::string& name) const { return values_.contains(name); }
    /// Given anywhere, rather than left at its default or that of a preset.
    bool given(const std::string& name) const;
    /// Given for this command alone: not by the environment, which other commands read, too.
    bool given_here(const std::string& name) const;
    std::string text(const std::string& name) const;
    bool flag(const std::string& name) const;
    /// A whole number of at least `least`.
    std::uint64_t whole(const std::string& name, std::uint64_t least) const;
    /// A finite number above zero (or at least zero).
    double positive(const std::string& name, bool zero_allowed = false) const;

    /// {"alpha": {"value": "100", "origin": "default"}, …}
    Json with_origins() const;
    /// Records the value that is really used, when it is derived from others ("128" samples of a file with 64).
    void set_effective(const std::string& name, const std::string& value, const std::string& origin);
    /// The value that a preset has for an option, unless the option is given.
    void set_preset(const std::string& name, const std::string& value, const std::string& preset);
    /// The words of a command line that says the same again for these options, as far as they are given.
    std::vector<std::string> words_of(const std::vector<std::string>& names) const;

  private:
    struct Value {
        std::string text;
        std::string origin;
        bool given = false;  ///< by the user
    };
    [[noreturn]] void refuse(const std::string& name, const std::string& expected) const;

    std::vector<OptionSpec> specs_;
    std::map<std::string, Value> values_;
};

}  // namespace espalier
