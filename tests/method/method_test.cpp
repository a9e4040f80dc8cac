// Names of published methods and of compositions, and what follows from the parts.
#include "src/method/method.h"

#include "tests/support/expect.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace espalier {
namespace {

using support::expect_input_error;

constexpr Score scores[] = {Score::magnitude, Score::wanda, Score::rgs, Score::sparsegpt};

TEST(Method, PublishedNamesAndTheirParts) {
    for (const char* const name : {"magnitude", "wanda", "sparsegpt", "rgs", "ro", "wanda++"}) {
        EXPECT_EQ(name_of(method_from_name(name)), name);
    }
    EXPECT_EQ(method_from_name("wanda++"), (Method{Score::rgs, Compensation::none, Optimization::regional}));
    EXPECT_EQ(method_from_name("ro"), (Method{Score::wanda, Compensation::none, Optimization::regional}));
    for (const Method method : {Method::magnitude, Method::wanda, Method::rgs}) EXPECT_TRUE(method.only_removes());
    for (const Method method : {Method::sparsegpt, Method::ro, Method::wanda_plus_plus}) {
        EXPECT_FALSE(method.only_removes());
    }
}

TEST(Method, EveryCompositionHasOneNameWhichIsRead) {
    std::set<std::string> names;
    for (const Score score : scores) {
        for (const Compensation compensation : {Compensation::none, Compensation::sparsegpt}) {
            if (score == Score::sparsegpt && compensation == Compensation::none) continue;
            for (const Optimization optimization : {Optimization::none, Optimization::regional}) {
                const Method method{score, compensation, optimization};
                EXPECT_TRUE(names.insert(name_of(method)).second) << name_of(method);
                EXPECT_EQ(method_from_name(name_of(method)), method) << name_of(method);
            }
        }
    }
    EXPECT_EQ(names.size(), 14U);
    EXPECT_TRUE(names.contains("rgs+sparsegpt+ro") && names.contains("sparsegpt+ro") && names.contains("magnitude+ro"));
    EXPECT_EQ(name_of(method_from_name("rgs+ro")), "wanda++") << "a published composition has its published name";
}

TEST(Method, OtherNamesAreRefusedWithThoseThatExist) {
    for (const char* const name : {"Wanda", "", "+ro", "wanda+", "wanda++ro", "ro+ro", "ro+sparsegpt",
                                   "sparsegpt+sparsegpt", "wanda+ro+sparsegpt", "wanda+rgs"}) {
        const std::string quoted = std::string("--method '") + name + "'";
        expect_input_error({quoted.c_str(), "magnitude, wanda, sparsegpt, rgs, ro, wanda++", "rgs+sparsegpt+ro"},
                           [&] { static_cast<void>(method_from_name(name)); });
    }
}

}  // namespace
}  // namespace espalier
