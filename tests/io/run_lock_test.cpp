// The lock of a run folder.
#include "io/run_folder.h"
#include "src/base/error.h"
#include "tests/support/expect.h"
#include "tests/support/temporary_folder.h"

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <array>

namespace espalier {
namespace {

using namespace support;

class RunLockTest : public testing::Test {
  protected:
    TemporaryFolder folder_;
    RunFolder run_{folder_.path()};
    std::filesystem::path lock_ = folder_.path() / "lock";

    static std::string host() {
        std::array<char, 256> name{};
        gethostname(name.data(), name.size() - 1);
        return name.data();
    }
    /// The number of a process that has ended.
    static long dead_process() {
        const pid_t child = fork();
        if (child == 0) _exit(0);
        waitpid(child, nullptr, 0);
        return child;
    }
};

TEST_F(RunLockTest, NamesItsHolderAndDisappears) {
    {
        const RunLock lock(run_, "run-1");
        EXPECT_TRUE(lock.takeover().empty());
        const Json holder = Json::parse(read_file(lock_));
        EXPECT_EQ(holder["host"], host());
        EXPECT_EQ(holder["process"], std::to_string(getpid()));
        EXPECT_EQ(holder["run_id"], "run-1");
    }
    EXPECT_FALSE(std::filesystem::exists(lock_));
    const RunLock again(run_, "run-2");
    EXPECT_TRUE(again.takeover().empty());
}

TEST_F(RunLockTest, TheSecondIsRefusedAndNamesTheFirst) {
    const RunLock first(run_, "run-1");
    expect_input_error({"another run", folder_.path().c_str(), host().c_str(), std::to_string(getpid()).c_str()},
                       [&] { RunLock(run_, "run-2"); });
    EXPECT_EQ(Json::parse(read_file(lock_))["run_id"], "run-1") << "the refused one left the lock as it was";
}

TEST_F(RunLockTest, ALockOfAnotherProcessHolds) {
    int to_child[2], to_parent[2];
    ASSERT_EQ(pipe(to_child), 0);
    ASSERT_EQ(pipe(to_parent), 0);
    const pid_t child = fork();
    if (child == 0) {
        char byte = 'r';
        {
            const RunLock lock(run_, "of the child");
            if (write(to_parent[1], &byte, 1) != 1 || read(to_child[0], &byte, 1) != 1) _exit(1);
        }
        _exit(0);
    }
    char byte = 0;
    ASSERT_EQ(read(to_parent[0], &byte, 1), 1);
    expect_input_error({"another run", std::to_string(child).c_str()}, [&] { RunLock(run_, "of the parent"); });
    ASSERT_EQ(write(to_child[1], &byte, 1), 1);
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
    EXPECT_NO_THROW(RunLock(run_, "of the parent"));
    for (const int descriptor : {to_child[0], to_child[1], to_parent[0], to_parent[1]}) close(descriptor);
}

TEST_F(RunLockTest, AStaleLockIsTakenOver) {
    const long process = dead_process();
    write_file(lock_, Json{{"host", host()}, {"process", std::to_string(process)}, {"slurm_job", "77"}}.dump());
    const RunLock lock(run_, "run-2");
    EXPECT_NE(lock.takeover().find(std::to_string(process)), std::string::npos) << lock.takeover();
    EXPECT_NE(lock.takeover().find("77"), std::string::npos) << lock.takeover();
    EXPECT_EQ(Json::parse(read_file(lock_))["run_id"], "run-2");
}

TEST_F(RunLockTest, AnEmptyOrTornLockFileIsTakenOver) {
    for (const char* const content : {"", "{\"host\":", "[]", "\x01\x02"}) {
        write_file(lock_, content);
        EXPECT_NO_THROW(RunLock(run_, "run")) << content;
    }
}

TEST_F(RunLockTest, LongOldContentIsReplacedWhole) {
    write_file(lock_, "{\"host\":\"" + std::string(3000, 'x') + "\",\"process\":\"1\"}");
    const RunLock lock(run_, "run");
    EXPECT_TRUE(Json::parse(read_file(lock_)).is_object());
}

TEST_F(RunLockTest, AFolderThatIsNotThere) {
    expect_input_error({"--output", "cannot be written"},
                       [&] { RunLock(RunFolder(folder_.path() / "absent"), "run"); });
}

}  // namespace
}  // namespace espalier
