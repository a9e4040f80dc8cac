#include "src/cli/option_set.h"

#include "src/base/error.h"
#include "src/cli/nearest_name.h"

#include <boost/program_options.hpp>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace espalier {

namespace po = boost::program_options;

namespace {

po::options_description describe(const std::vector<OptionSpec>& specs) {
    po::options_description description("Options", 100, 50);
    for (const OptionSpec& spec : specs) {
        if (spec.is_switch) {
            description.add_options()(
                spec.name.c_str(), po::value<std::string>()->implicit_value("true")->zero_tokens(), spec.help.c_str());
            continue;
        }
        const std::string help = spec.default_value ? spec.help + " [default: " + *spec.default_value + "]"
                                 : spec.required    ? spec.help + " (required)"
                                                    : spec.help;
        description.add_options()(spec.name.c_str(), po::value<std::string>(), help.c_str());
    }
    return description;
}

/// ESPALIER_RO_SAMPLES -> ro-samples, for the options of this command only.
std::string option_of_environment(const std::string& variable, const std::vector<OptionSpec>& specs) {
    const std::string prefix = "ESPALIER_";
    if (!variable.starts_with(prefix)) return "";
    std::string name = variable.substr(prefix.size());
    std::transform(name.begin(), name.end(), name.begin(),
                   [](unsigned char c) { return c == '_' ? '-' : static_cast<char>(std::tolower(c)); });
    const bool known =
        std::any_of(specs.begin(), specs.end(), [&](const OptionSpec& spec) { return spec.name == name; });
    return known ? name : "";
}

void refuse_repeated(const po::parsed_options& parsed, const std::string& where) {
    std::map<std::string, int> seen;
    for (const po::option& option : parsed.options) {
        if (++seen[option.string_key] > 1)
            throw InputError("option --" + option.string_key + " is given twice" + where);
    }
}

/// Every word begins with two dashes or is the value of an option: Boost's own message does not name a stray one.
/// Unknown options are left to Boost.
void refuse_stray_words(const std::vector<std::string>& arguments, const std::vector<OptionSpec>& specs) {
    bool value_expected = false;
    for (const std::string& word : arguments) {
        const bool is_option = word.starts_with("--");
        if (!is_option && !value_expected) throw InputError("'" + word + "' is not an option (options begin with --)");
        if (!is_option || word == "--") {
            value_expected = false;
            continue;
        }
        const std::string name = word.substr(2, word.find('=') - 2);
        const auto spec = std::find_if(specs.begin(), specs.end(), [&](const OptionSpec& s) { return s.name == name; });
        if (spec == specs.end()) return;
        value_expected = !spec->is_switch && word.find('=') == std::string::npos;
    }
}

std::string one_line(std::string text) {
    std::replace(text.begin(), text.end(), '\n', ' ');
    return text;
}

}  // namespace

std::string OptionSet::help(const std::string& command, const std::string& summary, const std::string& explanation,
                            const std::vector<OptionSpec>& specs) {
    std::ostringstream text;
    text << "espalier " << command << ": " << summary << "\n\n"
         << explanation << describe(specs)
         << "\nEvery option can also be set in the environment (ESPALIER_RO_SAMPLES for --ro-samples) or by a line\n"
            "'ro-samples = 16' in a file given with --config. The command line counts first, then the environment.\n";
    return text.str();
}

OptionSet::OptionSet(const std::string& command, std::vector<OptionSpec> specs,
                     const std::vector<std::string>& arguments, bool reads_environment)
    : specs_(std::move(specs)) {
    const po::options_description description = describe(specs_);
    const auto take = [&](const po::parsed_options& parsed, const std::string& origin) {
        for (const po::option& option : parsed.options) {
            const std::string value = option.value.empty() ? "true" : option.value.front();
            if (!values_.contains(option.string_key)) values_[option.string_key] = {value, origin, true};
        }
    };
    refuse_stray_words(arguments, specs_);
    try {
        // No guessing: a prefix of an option is not the option.
        const int style = po::command_line_style::default_style & ~po::command_line_style::allow_guessing;
        const po::parsed_options line = po::command_line_parser(arguments)
                                            .options(description)
                                            .positional(po::positional_options_description())
                                            .style(style)
                                            .run();
        refuse_repeated(line, "");
        take(line, "command line");
        if (reads_environment) {
            take(po::parse_environment(description,
                                       [&](const std::string& name) { return option_of_environment(name, specs_); }),
                 "environment");
        }
        if (values_.contains("config")) {
            const std::string path = values_["config"].text;
            std::ifstream file(path);
            if (!file || std::filesystem::is_directory(path))
                throw InputError("--config " + path + " is not a readable file");
            const po::parsed_options parsed = po::parse_config_file(file, description);
            refuse_repeated(parsed, " in --config " + path);
            take(parsed, "config file");
        }
    } catch (const po::unknown_option& error) {
        std::vector<std::string> names;
        for (const OptionSpec& spec : specs_) names.push_back(spec.name);
        const std::string given = error.get_option_name();  // with dashes on the command line, without in a file
        const std::string found = given.substr(0, given.find('='));
        const std::string nearest =
            nearest_name(found.substr(std::min(found.size(), found.find_first_not_of('-'))), names);
        throw InputError("there is no option '" + found + "'" + did_you_mean(nearest.empty() ? "" : "--" + nearest) +
                         " (espalier " + command + " --help lists them)");
    } catch (const po::error& error) {
        throw InputError(one_line(error.what()) + " (espalier " + command + " --help lists the options)");
    }
    for (const OptionSpec& spec : specs_) {
        if (spec.required && values_.contains(spec.name) && values_[spec.name].text.empty()) {
            throw InputError("--" + spec.name + " (" + values_[spec.name].origin + ") is empty");
        }
        if (values_.contains(spec.name)) continue;
        if (spec.is_switch)
            values_[spec.name] = {"false", "default"};
        else if (spec.default_value)
            values_[spec.name] = {*spec.default_value, "default"};
        else if (spec.required) {
            throw InputError("--" + spec.name + " is missing (espalier " + command + " --help lists the options)");
        }
    }
}

bool OptionSet::given(const std::string& name) const {
    const auto found = values_.find(name);
    return found != values_.end() && found->second.given;
}

bool OptionSet::given_here(const std::string& name) const {
    return given(name) && values_.at(name).origin != "environment";
}

std::string OptionSet::text(const std::string& name) const {
    const auto found = values_.find(name);
    require(found != values_.end(), "an option that is there");
    return found->second.text;
}

void OptionSet::refuse(const std::string& name, const std::string& expected) const {
    const Value& value = values_.at(name);
    throw InputError("--" + name + " '" + value.text + "' (" + value.origin + ") is not " + expected);
}

bool OptionSet::flag(const std::string& name) const {
    const std::string value = text(name);
    if (value == "true" || value == "1" || value == "yes" || value == "on") return true;
    if (value == "false" || value == "0" || value == "no" || value == "off") return false;
    refuse(name, "true or false");
}

std::uint64_t OptionSet::whole(const std::string& name, std::uint64_t least) const {
    const std::string value = text(name);
    std::uint64_t number = 0;
    const auto result = std::from_chars(value.data(), value.data() + value.size(), number);
    if (result.ec != std::errc() || result.ptr != value.data() + value.size() || number < least) {
        refuse(name, "a whole number of at least " + std::to_string(least));
    }
    return number;
}

double OptionSet::positive(const std::string& name, bool zero_allowed) const {
    const std::string value = text(name);
    double number = 0;
    const auto result = std::from_chars(value.data(), value.data() + value.size(), number);
    if (result.ec != std::errc() || result.ptr != value.data() + value.size() || !std::isfinite(number) ||
        !(number > 0 || (zero_allowed && number == 0))) {
        refuse(name, zero_allowed ? "a number of at least zero" : "a number above zero");
    }
    return number;
}

Json OptionSet::with_origins() const {
    Json json = Json::object();
    for (const auto& [name, value] : values_) json[name] = {{"value", value.text}, {"origin", value.origin}};
    return json;
}

void OptionSet::set_effective(const std::string& name, const std::string& value, const std::string& origin) {
    values_[name] = {value, origin};
}

void OptionSet::set_preset(const std::string& name, const std::string& value, const std::string& preset) {
    if (!given(name)) set_effective(name, value, "preset " + preset);
}

std::vector<std::string> OptionSet::words_of(const std::vector<std::string>& names) const {
    std::vector<std::string> words;
    for (const std::string& name : names) {
        if (given(name)) words.push_back("--" + name + "=" + text(name));
    }
    return words;
}

}  // namespace espalier
