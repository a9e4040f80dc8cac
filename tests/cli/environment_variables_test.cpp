// A misspelt ESPALIER_... is not ignored in silence.
#include "src/cli/environment_variables.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>

namespace espalier {
namespace {

using Names = std::vector<std::string>;

std::vector<OptionSpec> options() {
    std::vector<OptionSpec> specs(3);
    specs[0].name = "samples";
    specs[1].name = "ro-learning-rate";
    specs[2].name = "model";
    return specs;
}

TEST(EnvironmentVariables, OptionsAndWhatScriptsReadAreKnown) {
    EXPECT_EQ(variable_of_option("ro-learning-rate"), "ESPALIER_RO_LEARNING_RATE");
    const Names known = {"ESPALIER_COMMUNICATION_DEADLINE",
                         "ESPALIER_MODEL",
                         "ESPALIER_RO_LEARNING_RATE",
                         "ESPALIER_SLURM",
                         "ESPALIER_TEST_DEVICE",
                         "ESPALIER_model",
                         "ESPALIER_RO-LEARNING-RATE"};
    EXPECT_EQ(unread_variables(known, options()), Names{});
}

TEST(EnvironmentVariables, AMisspeltOneIsNamedWithTheNearest) {
    const auto sentence_about = [](const std::string& name) {
        const Names sentences = unread_variables({"ESPALIER_MODEL", name}, options());
        EXPECT_EQ(sentences.size(), 1U);
        return sentences.empty() ? std::string() : sentences[0];
    };
    const auto expect_nearest = [&](const std::string& name, const std::string& nearest) {
        EXPECT_EQ(sentence_about(name), name + " is set, but nothing reads it; did you mean " + nearest + "?");
    };
    expect_nearest("ESPALIER_SAMPELS", "ESPALIER_SAMPLES");
    expect_nearest("ESPALIER_SAMPLE", "ESPALIER_SAMPLES");
    expect_nearest("ESPALIER_LEARNING_RATE", "ESPALIER_RO_LEARNING_RATE");
    expect_nearest("ESPALIER_COMUNICATION_DEADLINE", "ESPALIER_COMMUNICATION_DEADLINE");
    expect_nearest("ESPALIER_SLURM_", "ESPALIER_SLURM");
    EXPECT_EQ(sentence_about("ESPALIER_FAVOURITE_COLOUR"), "ESPALIER_FAVOURITE_COLOUR is set, but nothing reads it");
    EXPECT_EQ(sentence_about("ESPALIER_"), "ESPALIER_ is set, but nothing reads it");
}

TEST(EnvironmentVariables, ThoseOfThisProcess) {
    setenv("ESPALIER_OF_THIS_TEST", "a=b", 1);
    const Names found = own_variables();
    unsetenv("ESPALIER_OF_THIS_TEST");
    EXPECT_EQ(std::count(found.begin(), found.end(), "ESPALIER_OF_THIS_TEST"), 1);
    EXPECT_TRUE(
        std::all_of(found.begin(), found.end(), [](const auto& name) { return name.starts_with("ESPALIER_"); }));
}

}  // namespace
}  // namespace espalier
