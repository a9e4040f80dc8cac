// Requests of tasks in HDF5 files.
#include "io/request_file.h"

#include "io/checksum.h"
#include "io/hdf5_handle.h"
#include "tests/support/expect.h"
#include "tests/support/temporary_folder.h"

#include <gtest/gtest.h>

#include <map>

namespace espalier {
namespace {

using namespace support;

class RequestFileTest : public testing::Test {
  protected:
    TemporaryFolder folder_;
    std::filesystem::path path_ = folder_.path() / "requests.h5";
    std::map<std::string, std::vector<std::int64_t>> content_ = {{"context_ids", {1, 2, 3, 4, 5}},
                                                                 {"context_begin", {0, 3, 5}},
                                                                 {"continuation_ids", {6, 7, 8}},
                                                                 {"continuation_begin", {0, 1, 3}},
                                                                 {"characters", {4, 9}},
                                                                 {"bytes", {4, 10}},
                                                                 {"item_begin", {0, 2}},
                                                                 {"gold", {1}},
                                                                 {"task", {0}}};
    std::string tasks_ = R"(["arc"])";

    void write() {
        const auto lock = lock_hdf5();
        const Hdf5Handle file(H5Fcreate(path_.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), H5Fclose);
        for (const auto& [name, values] : content_) {
            const hsize_t size = values.size();
            const Hdf5Handle space(H5Screate_simple(1, &size, nullptr), H5Sclose);
            const Hdf5Handle dataset(
                H5Dcreate2(file.id(), name.c_str(), H5T_STD_I64LE, space.id(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
                H5Dclose);
            if (size > 0) H5Dwrite(dataset.id(), H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data());
        }
        const Hdf5Handle scalar(H5Screate(H5S_SCALAR), H5Sclose), text(H5Tcopy(H5T_C_S1), H5Tclose);
        H5Tset_size(text.id(), tasks_.size());
        const Hdf5Handle attribute(H5Acreate2(file.id(), "tasks", text.id(), scalar.id(), H5P_DEFAULT, H5P_DEFAULT),
                                   H5Aclose);
        H5Awrite(attribute.id(), text.id(), tasks_.data());
    }
    void expect_refused(std::initializer_list<const char*> words) {
        write();
        expect_input_error(words, [&] { read_request_file(path_, 100); });
    }
};

TEST_F(RequestFileTest, HandsOutContextsAndContinuations) {
    write();
    const RequestTable table = read_request_file(path_, 9);
    ASSERT_EQ(table.size(), 2U);
    EXPECT_EQ(std::vector<std::int32_t>(table.context(1).begin(), table.context(1).end()),
              (std::vector<std::int32_t>{4, 5}));
    EXPECT_EQ(std::vector<std::int32_t>(table.continuation(1).begin(), table.continuation(1).end()),
              (std::vector<std::int32_t>{7, 8}));
    EXPECT_EQ(table.requests_of_item(0).size(), 2U);
    EXPECT_EQ(table.tasks, (std::vector<std::string>{"arc"}));
    EXPECT_EQ(table.gold, (std::vector<std::int32_t>{1}));
    EXPECT_EQ(table.bytes, (std::vector<std::int32_t>{4, 10}));
    EXPECT_EQ(table.sha256, sha256_of_file(path_));
}

TEST_F(RequestFileTest, RefusesOtherFiles) {
    write_file(path_, "{\"context\": \"a\"}\n");
    expect_input_error({"requests.h5", "not an HDF5 file", "prepare_requests.py"},
                       [&] { read_request_file(path_, 100); });
    expect_input_error({"missing.h5"}, [&] { read_request_file(folder_.path() / "missing.h5", 100); });
    content_ = {{"input_ids", {1, 2}}};
    expect_refused({"no dataset /context_ids", "prepare_requests.py"});
}

TEST_F(RequestFileTest, RefusesWhatDoesNotFitTogether) {
    const auto whole = content_;
    content_["context_ids"][1] = 100;
    expect_refused({"/context_ids", "token id 100 at [1]", "vocabulary of 100"});
    content_ = whole;
    content_["continuation_ids"][0] = -1;
    expect_refused({"/continuation_ids", "token id -1 at [0]"});
    content_ = whole;
    content_["continuation_begin"] = {0, 1, 4};
    expect_refused({"/continuation_begin", "ends with 4", "3 tokens"});
    content_ = whole;
    content_["continuation_begin"] = {0, 3, 3};
    expect_refused({"/continuation_begin", "3 at [2]", "empty"});
    content_ = whole;
    content_["context_begin"] = {1, 3, 5};
    expect_refused({"/context_begin", "1 at [0]"});
    content_ = whole;
    content_["context_begin"] = {0, 5};
    expect_refused({"1 contexts", "2 continuations"});
    content_ = whole;
    content_["context_begin"] = {0};
    expect_refused({"/context_begin", "holds no requests"});
}

TEST_F(RequestFileTest, RefusesItemsWithoutARightChoice) {
    const auto whole = content_;
    content_["gold"] = {2};
    expect_refused({"/gold", "choice 2 at [0]", "has 2"});
    content_ = whole;
    content_["task"] = {1};
    expect_refused({"/task", "task 1 at [0]", "not one of the 1"});
    content_ = whole;
    content_["task"] = {0, 0};
    expect_refused({"/task", "2 numbers", "1 are expected"});
    content_ = whole;
    content_["bytes"] = {4};
    expect_refused({"/bytes", "1 numbers", "2 are expected"});
    content_ = whole;
    tasks_ = "arc";
    expect_refused({"attribute 'tasks'"});
    tasks_ = "{\"arc\": 1}";
    expect_refused({"'tasks'", "JSON list"});
    tasks_ = R"(["arc", "arc"])";
    expect_refused({"two of its tasks are called 'arc'"});
}

}  // namespace
}  // namespace espalier
