// Shuffles, votes and exchanges of a warp, in every order of its lanes.
#include "tests/emulation/emulation_test.h"

namespace espalier::emulation {
namespace {

constexpr unsigned all = 0xffffffffU;

/// Runs `kernel` on `threads` threads of one block, each of which writes one number, in all orders.
template <typename Kernel>
void expect_by_lane(Kernel kernel, unsigned threads, const std::vector<int>& expected) {
    for (const auto& found : in_all_orders([&] {
             const GpuArray<int> out(threads);
             const TestStream stream;
             cuda::launch("test", kernel, {1, threads}, stream, out.data());
             return out.read(stream);
         })) {
        EXPECT_EQ(found, expected);
    }
}

template <typename Function>
std::vector<int> by_lane(int lanes, const Function& function) {
    std::vector<int> values;
    for (int lane = 0; lane < lanes; ++lane) values.push_back(function(lane));
    return values;
}

__global__ void shuffle_xor(int* out) {
    const int lane = static_cast<int>(threadIdx.x);
    out[lane] = __shfl_xor_sync(all, 100 + lane, 5);
}
__global__ void shuffle_from_third_of_eight(int* out) {
    const int lane = static_cast<int>(threadIdx.x);
    out[lane] = __shfl_sync(all, 100 + lane, 3, 8);
}
__global__ void shuffle_up(int* out) {
    const int lane = static_cast<int>(threadIdx.x);
    out[lane] = __shfl_up_sync(all, 100 + lane, 2, 16);
}
__global__ void shuffle_down(int* out) {
    const int lane = static_cast<int>(threadIdx.x);
    out[lane] = __shfl_down_sync(all, 100 + lane, 3);
}

TEST(Warp, Shuffles) {
    expect_by_lane(shuffle_xor, 32, by_lane(32, [](int lane) { return 100 + (lane ^ 5); }));
    expect_by_lane(shuffle_from_third_of_eight, 32, by_lane(32, [](int lane) { return 100 + lane / 8 * 8 + 3; }));
    expect_by_lane(shuffle_up, 32, by_lane(32, [](int lane) { return 100 + (lane % 16 < 2 ? lane : lane - 2); }));
    expect_by_lane(shuffle_down, 32, by_lane(32, [](int lane) { return 100 + (lane + 3 > 31 ? lane : lane + 3); }));
}

__global__ void votes(int* out) {
    const int lane = static_cast<int>(threadIdx.x);
    const unsigned odd = __ballot_sync(all, lane % 2);
    const int any = __any_sync(all, lane == 7), none = __any_sync(all, lane == 99);
    const int every = __all_sync(all, lane >= 0), not_every = __all_sync(all, lane != 7);
    out[lane] = odd == 0xaaaaaaaaU && any == 1 && none == 0 && every == 1 && not_every == 0 ? 1 : 0;
}

TEST(Warp, Votes) {
    expect_by_lane(votes, 32, std::vector<int>(32, 1));
}

__global__ void ballot_of_short_warp(int* out) {
    out[threadIdx.x] = __popc(__ballot_sync(all, 1));
}

TEST(Warp, LanesThatDoNotExistDoNotVote) {
    std::vector<int> expected(52, 32);
    for (std::size_t thread = 32; thread < 52; ++thread) expected[thread] = 20;
    expect_by_lane(ballot_of_short_warp, 52, expected);
}

__global__ void halves(int* out) {
    const int lane = static_cast<int>(threadIdx.x), half = lane / 16;
    const unsigned mine = half == 0 ? 0x0000ffffU : 0xffff0000U;
    int value = lane;
    // The halves shuffle a different number of times.
    for (int i = 0; i <= half; ++i) value = __shfl_xor_sync(mine, value, 1);
    out[lane] = value;
}

TEST(Warp, PartsOfAWarpMeetByTheirMasks) {
    expect_by_lane(halves, 32, by_lane(32, [](int lane) { return lane < 16 ? lane ^ 1 : lane; }));
}

struct Payload {
    int values[4];
};
__global__ void share(int* out) {
    const int lane = static_cast<int>(threadIdx.x);
    const Payload* const lanes = share_in_warp(Payload{{lane, 2 * lane, 3 * lane, 4 * lane}});
    out[lane] = lanes[31 - lane].values[3];
}

TEST(Warp, SharesPayloads) {
    expect_by_lane(share, 32, by_lane(32, [](int lane) { return 4 * (31 - lane); }));
}

__global__ void exchange_through_memory(int* out) {
    ESPALIER_SHARED_ARRAY(int, values, 32);
    const int lane = static_cast<int>(threadIdx.x);
    values[lane] = lane;
    __syncwarp();
    out[lane] = values[31 - lane];
}

TEST(Warp, SynchronisesMemory) {
    expect_by_lane(exchange_through_memory, 32, by_lane(32, [](int lane) { return 31 - lane; }));
}

}  // namespace
}  // namespace espalier::emulation
