// The rules of NCCL that a single rank shows, and failures on demand. mpi_tests and test_program.py have several ranks.
#include "tests/emulation/emulation_test.h"

#include <nccl.h>

#include <string>

namespace espalier::emulation {
namespace {

/// A communicator of one rank.
class Alone {
  public:
    Alone() {
        ncclUniqueId id{};
        EXPECT_EQ(ncclGetUniqueId(&id), ncclSuccess);
        ncclConfig_t configuration = NCCL_CONFIG_INITIALIZER;
        configuration.blocking = 0;
        made = ncclCommInitRankConfig(&communicator, 1, id, 0, &configuration);
    }
    Alone(const Alone&) = delete;
    Alone& operator=(const Alone&) = delete;
    ~Alone() { EXPECT_EQ(ncclCommAbort(communicator), ncclSuccess); }

    ncclResult_t state() const {
        ncclResult_t result = ncclSuccess;
        EXPECT_EQ(ncclCommGetAsyncError(communicator, &result), ncclSuccess);
        return result;
    }
    void settle() const {
        while (state() == ncclInProgress) {
        }
    }

    ncclComm_t communicator = nullptr;
    ncclResult_t made = ncclSuccess;
};

TEST(Nccl, CallsAreUnderWayUntilTheCallerAsks) {
    const Alone alone;
    const TestStream stream;
    const GpuArray<int> array(std::vector<int>(4, 3));
    EXPECT_EQ(alone.made, ncclInProgress);
    EXPECT_EQ(alone.state(), ncclInProgress);
    EXPECT_EQ(alone.state(), ncclSuccess);
    const auto broadcast = [&] {
        return ncclBroadcast(array.data(), array.data(), 4, ncclInt32, 0, alone.communicator, stream);
    };
    EXPECT_EQ(broadcast(), ncclInProgress);
    EXPECT_EQ(broadcast(), ncclInvalidUsage) << "while the first is under way";
    EXPECT_NE(std::string(ncclGetLastError(alone.communicator)).find("ncclCommGetAsyncError"), std::string::npos);
    EXPECT_EQ(alone.state(), ncclInvalidUsage);
    EXPECT_EQ(array.read(stream), std::vector<int>(4, 3));
}

TEST(Nccl, GroupsAndPeersAreChecked) {
    const Alone alone;
    alone.settle();
    EXPECT_EQ(ncclGroupEnd(), ncclInvalidUsage);
    EXPECT_EQ(ncclGroupStart(), ncclSuccess);
    EXPECT_EQ(ncclGroupEnd(), ncclSuccess) << "of nothing";
    const TestStream stream;
    const GpuArray<int> array(1);
    EXPECT_EQ(ncclSend(array.data(), 1, ncclInt32, 1, alone.communicator, stream), ncclInvalidArgument);
}

TEST(Nccl, CallsFailOnDemand) {
    SettingsForAWhile settings;
    settings->nccl_fault = {"ncclBroadcast", 2, -1};
    const Alone alone;
    const TestStream stream;
    const GpuArray<int> array(1);
    std::vector<ncclResult_t> results;
    for (int call = 0; call < 2; ++call) {
        alone.settle();
        results.push_back(ncclBroadcast(array.data(), array.data(), 1, ncclInt32, 0, alone.communicator, stream));
    }
    EXPECT_EQ(results, (std::vector<ncclResult_t>{ncclInProgress, ncclSystemError}));
    EXPECT_EQ(std::string(ncclGetLastError(alone.communicator)), "ncclBroadcast failed on purpose");

    settings->nccl_fault = {"ncclGetUniqueId", 1, 1};  // of another rank
    ncclUniqueId id{};
    EXPECT_EQ(ncclGetUniqueId(&id), ncclSuccess);
    settings->nccl_fault = {"ncclGetUniqueId", 1, 0};
    EXPECT_EQ(ncclGetUniqueId(&id), ncclSystemError);
}

TEST(Nccl, ExchangesFailAndFallSilentOnDemand) {
    SettingsForAWhile settings;
    const GpuArray<int> array(1);
    for (const std::string fault : {"exchange", "silence"}) {
        const TestStream stream;
        const Alone alone;
        alone.settle();
        settings->nccl_fault = {fault, 1, -1};
        EXPECT_EQ(ncclBroadcast(array.data(), array.data(), 1, ncclInt32, 0, alone.communicator, stream),
                  ncclInProgress);
        static_cast<void>(alone.state());
        EXPECT_EQ(alone.state(), fault == "exchange" ? ncclRemoteError : ncclSuccess);
        cudaEvent_t end = nullptr;
        ASSERT_EQ(cudaEventCreateWithFlags(&end, cudaEventDisableTiming), cudaSuccess);
        ASSERT_EQ(cudaEventRecord(end, stream), cudaSuccess);
        EXPECT_EQ(cudaEventQuery(end), cudaErrorNotReady);
        EXPECT_EQ(cudaEventDestroy(end), cudaSuccess);
    }
}

}  // namespace
}  // namespace espalier::emulation
