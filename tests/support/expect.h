#pragma once
/// Assertions that the tests share.

#include "src/base/error.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <functional>
#include <initializer_list>
#include <span>
#include <string>
#include <vector>

namespace espalier::support {

/// Largest relative error of one float32 rounding.
inline constexpr double unit_roundoff = 0x1p-24;

/// Runs `step` and expects an Error of `status` whose sentence holds all of `words`.
inline void expect_error(ExitStatus status, std::initializer_list<const char*> words,
                         const std::function<void()>& step) {
    try {
        step();
    } catch (const Error& error) {
        EXPECT_EQ(static_cast<int>(error.status()), static_cast<int>(status)) << error.what();
        for (const char* const word : words) {
            EXPECT_NE(std::string(error.what()).find(word), std::string::npos)
                << "'" << word << "' is not in: " << error.what();
        }
        return;
    } catch (const std::exception& other) {
        ADD_FAILURE() << "an Error was expected, not: " << other.what();
        return;
    }
    std::string expected;
    for (const char* const word : words) expected += std::string(" '") + word + "'";
    ADD_FAILURE() << "nothing was thrown; an error was expected with" << expected;
}

inline void expect_input_error(std::initializer_list<const char*> words, const std::function<void()>& step) {
    expect_error(ExitStatus::input, words, step);
}

/// |value - reference| <= bound for every element; reports the first that is not.
inline void expect_within(std::span<const float> values, std::span<const double> reference,
                          std::span<const double> bounds, const std::string& what) {
    ASSERT_EQ(values.size(), reference.size()) << what;
    ASSERT_EQ(values.size(), bounds.size()) << what;
    for (std::size_t i = 0; i < values.size(); ++i) {
        const double error = std::fabs(static_cast<double>(values[i]) - reference[i]);
        if (error <= bounds[i]) continue;  // false for NaN
        ADD_FAILURE() << what << ": element " << i << " of " << values.size() << " is " << values[i] << ", reference "
                      << reference[i] << ", error " << error << ", bound " << bounds[i];
        return;
    }
}

}  // namespace espalier::support
