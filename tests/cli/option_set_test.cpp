// Options from command line, environment, config file and defaults.
#include "src/cli/option_set.h"

#include "tests/support/expect.h"
#include "tests/support/temporary_folder.h"

#include <gtest/gtest.h>

#include <cstdlib>

namespace espalier {
namespace {

using namespace support;
using Arguments = std::vector<std::string>;

std::vector<OptionSpec> specs() {
    return {{"model", "folder", std::nullopt, false, true},     {"alpha", "factor", "100", false, false},
            {"ro-samples", "samples", "32", false, false},      {"ro-rounds", "rounds", "5", false, false},
            {"hold-mask", "switch", std::nullopt, true, false}, {"note", "free", std::nullopt, false, false},
            {"config", "file", std::nullopt, false, false}};
}

OptionSet parse(const Arguments& arguments) {
    return OptionSet("prune", specs(), arguments);
}

void expect_refused(const Arguments& arguments, std::initializer_list<const char*> words) {
    expect_input_error(words, [&] { parse(arguments); });
}

/// A variable of the environment during one test.
class Variable {
  public:
    Variable(const char* name, const std::string& value) : name_(name) { ::setenv(name, value.c_str(), 1); }
    Variable(const Variable&) = delete;
    Variable& operator=(const Variable&) = delete;
    ~Variable() { ::unsetenv(name_); }

  private:
    const char* name_;
};

TEST(OptionSet, Defaults) {
    const OptionSet options = parse({"--model", "m"});
    EXPECT_EQ(options.text("model"), "m");
    EXPECT_EQ(options.whole("ro-samples", 1), 32U);
    EXPECT_EQ(options.positive("alpha"), 100);
    EXPECT_FALSE(options.flag("hold-mask"));
    EXPECT_FALSE(options.has("note"));
    EXPECT_TRUE(options.given("model"));
    EXPECT_FALSE(options.given("alpha"));
    EXPECT_FALSE(options.given("note"));
    expect_error(ExitStatus::bug, {"option"}, [&] { static_cast<void>(options.text("note")); });
}

TEST(OptionSet, BothSpellingsOfAValue) {
    EXPECT_EQ(parse({"--model=m", "--alpha", "3"}).text("alpha"), "3");
    EXPECT_EQ(parse({"--model", "m", "--alpha=3"}).text("alpha"), "3");
    EXPECT_EQ(parse({"--model", "m", "--note=a=b c"}).text("note"), "a=b c");
    EXPECT_TRUE(parse({"--model", "m", "--hold-mask"}).flag("hold-mask"));
}

TEST(OptionSet, CommandLineBeforeEnvironmentBeforeConfigBeforeDefault) {
    const TemporaryFolder folder;
    const std::string file = folder.path() / "options.ini";
    write_file(file, "# a comment\nalpha = 1\nro-samples = 1\nro-rounds = 1\nhold-mask = true\n");
    const Variable alpha("ESPALIER_ALPHA", "2"), samples("ESPALIER_RO_SAMPLES", "2");
    const OptionSet options = parse({"--model", "m", "--config", file, "--alpha", "3"});
    EXPECT_EQ(options.text("alpha"), "3");
    EXPECT_EQ(options.text("ro-samples"), "2");
    EXPECT_EQ(options.text("ro-rounds"), "1");
    EXPECT_TRUE(options.flag("hold-mask"));
    const Json origins = options.with_origins();
    EXPECT_EQ(origins["alpha"], (Json{{"value", "3"}, {"origin", "command line"}}));
    EXPECT_EQ(origins["ro-samples"]["origin"], "environment");
    EXPECT_EQ(origins["ro-rounds"]["origin"], "config file");
    EXPECT_EQ(parse({"--model", "m"}).with_origins()["ro-rounds"]["origin"], "default");
}

TEST(OptionSet, ASwitchCanBeTakenBack) {
    const Variable held("ESPALIER_HOLD_MASK", "true");
    EXPECT_TRUE(parse({"--model", "m"}).flag("hold-mask"));
    const Variable free("ESPALIER_HOLD_MASK", "off");
    EXPECT_FALSE(parse({"--model", "m"}).flag("hold-mask"));
}

TEST(OptionSet, RequiredOptionsMayComeFromAnywhere) {
    expect_refused({}, {"--model", "missing", "--help"});
    const Variable model("ESPALIER_MODEL", "m");
    EXPECT_EQ(parse({}).text("model"), "m");
}

TEST(OptionSet, ConfigItselfMayComeFromTheEnvironment) {
    const TemporaryFolder folder;
    write_file(folder.path() / "c", "alpha = 7\n");
    const Variable config("ESPALIER_CONFIG", folder.path() / "c");
    EXPECT_EQ(parse({"--model", "m"}).text("alpha"), "7");
}

TEST(OptionSet, ForeignVariablesOfTheEnvironmentAreLeftAlone) {
    const Variable other_command("ESPALIER_TOKENS", "x"), unrelated("ALPHA", "9");
    EXPECT_EQ(parse({"--model", "m"}).text("alpha"), "100");
}

TEST(OptionSet, RefusesUnknownOptionsAndAbbreviations) {
    expect_refused({"--model", "m", "--alpa", "3"}, {"'--alpa'", "did you mean --alpha?", "--help"});
    expect_refused({"--mod", "m"}, {"mod"});
    expect_refused({"--model", "m", "--ro-s", "3"}, {"ro-s"});
    expect_refused({"--model", "m", "-a", "3"}, {"a"});
    expect_refused({"--model", "m", "stray"}, {"'stray'"});
}

TEST(OptionSet, RefusesOptionsGivenTwice) {
    expect_refused({"--model", "m", "--alpha", "1", "--alpha", "1"}, {"--alpha", "twice"});
    expect_refused({"--model", "m", "--hold-mask", "--hold-mask"}, {"--hold-mask", "twice"});
}

TEST(OptionSet, RefusesMissingAndSurplusValues) {
    expect_refused({"--model"}, {"model"});
    expect_refused({"--model", "m", "--alpha"}, {"alpha"});
    expect_refused({"--model", "m", "--alpha="}, {"alpha"});
    expect_refused({"--model", ""}, {"--model"});
    expect_refused({"--model", "m", "--hold-mask=yes"}, {"hold-mask"});
}

TEST(OptionSet, RefusesWrongConfigFiles) {
    const TemporaryFolder folder;
    expect_refused({"--model", "m", "--config", folder.path() / "absent"}, {"--config", "not a readable file"});
    expect_refused({"--model", "m", "--config", folder.path()}, {"--config", "not a readable file"});
    const std::string file = folder.path() / "c";
    for (const char* const content : {"alpa = 3\n", "alpha\n"}) {
        write_file(file, content);
        expect_refused({"--model", "m", "--config", file}, {"alp"});
    }
}

TEST(OptionSet, RefusesOptionsGivenTwiceInTheConfigFile) {
    const TemporaryFolder folder;
    const std::string file = folder.path() / "c";
    write_file(file, "alpha = 1\nalpha = 2\n");
    expect_refused({"--model", "m", "--config", file}, {"alpha", "twice"});
}

TEST(OptionSet, RefusesWhatIsNoWholeNumber) {
    for (const char* const value : {"x", "-1", "+1", "1.0", "1e3", " 1", "1 ", "0x10", "18446744073709551616", "0"}) {
        const OptionSet options = parse({"--model", "m", std::string("--ro-samples=") + value});
        expect_input_error({"--ro-samples", "command line", "whole number of at least 1"},
                           [&] { static_cast<void>(options.whole("ro-samples", 1)); });
    }
    EXPECT_EQ(parse({"--model", "m", "--ro-samples", "18446744073709551615"}).whole("ro-samples", 1),
              ~std::uint64_t{0});
    EXPECT_EQ(parse({"--model", "m", "--ro-samples", "0"}).whole("ro-samples", 0), 0U);
}

TEST(OptionSet, RefusesWhatIsNoPositiveNumber) {
    for (const char* const value : {"x", "-1", "nan", "inf", "1,5", "1.5x", "1e999", "0", "-0"}) {
        const OptionSet options = parse({"--model", "m", std::string("--alpha=") + value});
        expect_input_error({"--alpha", "command line", "above zero"},
                           [&] { static_cast<void>(options.positive("alpha")); });
    }
    EXPECT_EQ(parse({"--model", "m", "--alpha", "3e-7"}).positive("alpha"), 3e-7);
    EXPECT_EQ(parse({"--model", "m", "--alpha", "0"}).positive("alpha", true), 0);
}

TEST(OptionSet, RefusesWhatIsNeitherTrueNorFalse) {
    const Variable held("ESPALIER_HOLD_MASK", "maybe");
    const OptionSet options = parse({"--model", "m"});
    expect_input_error({"--hold-mask", "maybe", "environment"}, [&] { static_cast<void>(options.flag("hold-mask")); });
}

TEST(OptionSet, EffectiveValuesAreRecorded) {
    OptionSet options = parse({"--model", "m"});
    options.set_effective("ro-samples", "16", "the file's samples");
    EXPECT_EQ(options.whole("ro-samples", 1), 16U);
    EXPECT_EQ(options.with_origins()["ro-samples"]["origin"], "the file's samples");
}

TEST(OptionSet, HelpNamesEveryOption) {
    const std::string help = OptionSet::help("prune", "prunes a model", "", specs());
    for (const OptionSpec& spec : specs()) EXPECT_NE(help.find("--" + spec.name), std::string::npos) << spec.name;
    EXPECT_NE(help.find("[default: 100]"), std::string::npos);
    EXPECT_NE(help.find("(required)"), std::string::npos);
}

}  // namespace
}  // namespace espalier
