// A model's folder in the hub's cache stands for the snapshot of refs/main.
#include "io/hub_cache.h"

#include "tests/support/expect.h"
#include "tests/support/temporary_folder.h"

#include <gtest/gtest.h>

namespace espalier {
namespace {

using namespace support;

class HubCache : public testing::Test {
  protected:
    TemporaryFolder folder_;
    std::filesystem::path model_ = folder_.path() / "models--org--name";

    void SetUp() override {
        for (const char* const name : {"refs", "blobs", "snapshots/abc123", "snapshots/def456"}) {
            std::filesystem::create_directories(model_ / name);
        }
        write_file(model_ / "refs/main", "def456");
    }
    void expect_refused(std::initializer_list<const char*> words) {
        expect_input_error(words, [&] { static_cast<void>(locate_model_folder(model_)); });
    }
};

TEST_F(HubCache, TheSnapshotOfRefsMainIsTakenAndSaid) {
    const LocatedFolder located = locate_model_folder(model_);
    EXPECT_EQ(located.path, model_ / "snapshots/def456");
    for (const char* const word : {"models--org--name", "def456", "refs/main"}) {
        EXPECT_NE(located.note.find(word), std::string::npos) << located.note;
    }
    write_file(model_ / "refs/main", "abc123\n");
    EXPECT_EQ(locate_model_folder(model_ / "").path.lexically_normal(), model_ / "snapshots/abc123");
}

TEST_F(HubCache, OtherFoldersStayAsTheyAre) {
    for (const std::filesystem::path& path : {model_ / "snapshots/abc123", folder_.path(), folder_.path() / "absent"}) {
        EXPECT_EQ(locate_model_folder(path).path, path);
        EXPECT_EQ(locate_model_folder(path).note, "");
    }
    write_file(model_ / "config.json", "{}");  // then it is a model folder itself
    EXPECT_EQ(locate_model_folder(model_).path, model_);
}

TEST_F(HubCache, RefusesWhatIsNotComplete) {
    write_file(model_ / "refs/main", "fff999");
    expect_refused({"fff999", "not there", "name a snapshot", "abc123"});
    write_file(model_ / "refs/main", "../../elsewhere");
    expect_refused({"refs/main", "does not hold the name"});
    write_file(model_ / "refs/main", "");
    expect_refused({"refs/main", "does not hold the name"});
    std::filesystem::remove(model_ / "refs/main");
    expect_refused({"no refs/main", "name a snapshot", "abc123"});
    std::filesystem::remove_all(model_ / "snapshots");
    expect_refused({"no refs/main", "download the model again"});
}

TEST_F(HubCache, KnowsTheCommitOfASnapshot) {
    EXPECT_EQ(snapshot_commit(model_ / "snapshots/abc123"), "abc123");
    EXPECT_EQ(snapshot_commit(model_), "");
    EXPECT_EQ(snapshot_commit("/elsewhere/snapshots/abc123"), "");
}

}  // namespace
}  // namespace espalier
