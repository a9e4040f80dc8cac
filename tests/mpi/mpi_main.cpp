// main of the tests that every rank of an mpirun runs alike. A failed expectation on one rank fails the test on all; an
// exception or a failed ASSERT on a single rank ends the whole job, since the others may wait for it in a collective.
// Tests that must stop early together use `agreed` (tests/support/ranks.h).
#include "mpi/session.h"
#include "tests/support/ranks.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>

namespace espalier {
namespace {

/// Prints each test once, and failures of every rank behind the rank's number.
class RankPrinter : public testing::EmptyTestEventListener {
  public:
    explicit RankPrinter(const Session& session) : session_(session) {}

    void OnTestPartResult(const testing::TestPartResult& result) override {
        if (!result.failed()) return;
        std::fprintf(stderr, "[rank %d of %d] %s:%d: %s\n", session_.rank(), session_.size(),
                     result.file_name() == nullptr ? "?" : result.file_name(), result.line_number(), result.message());
        if (result.fatally_failed() && session_.size() > 1) {
            std::fprintf(stderr, "[rank %d of %d] the other ranks may be waiting: the job is ended\n", session_.rank(),
                         session_.size());
            session_.fail(BugError("a test failed on this rank"));
        }
    }
    void OnTestEnd(const testing::TestInfo& test) override {
        const int failed = test.result()->Failed() ? 1 : 0;
        const auto all = session_.world().all_gather_value(failed);
        const auto failures = std::count(all.begin(), all.end(), 1);
        failed_tests_ += failures > 0 ? 1 : 0;
        if (session_.rank() != 0) return;
        std::printf("%s %s.%s", failures == 0 ? "ok    " : "FAILED", test.test_suite_name(), test.name());
        if (failures > 0) std::printf(" on %ld of %d ranks", static_cast<long>(failures), session_.size());
        std::printf("\n");
        std::fflush(stdout);
    }
    void OnTestProgramEnd(const testing::UnitTest& unit) override {
        if (session_.rank() != 0) return;
        std::printf("%d ranks: %d tests, %d failed, %ld ms\n", session_.size(), unit.test_to_run_count(), failed_tests_,
                    static_cast<long>(unit.elapsed_time()));
    }

  private:
    const Session& session_;
    int failed_tests_ = 0;
};

int run(int argc, char** argv) {
    testing::InitGoogleTest(&argc, argv);
    Session session;
    const std::string option = argc > 1 ? argv[1] : "";
    if (option.starts_with("--ranks=") && std::atoi(option.c_str() + 8) != session.size()) {
        std::fprintf(stderr, "%s was demanded, %d ranks are there\n", option.c_str(), session.size());
        return 1;
    }
    support::set_session(session);
    auto& listeners = testing::UnitTest::GetInstance()->listeners();
    delete listeners.Release(listeners.default_result_printer());
    listeners.Append(new RankPrinter(session));
    const auto all = session.world().all_gather_value(RUN_ALL_TESTS());
    return *std::max_element(all.begin(), all.end());
}

}  // namespace
}  // namespace espalier

int main(int argc, char** argv) {
    return espalier::run(argc, argv);
}
