#pragma once
/// How kernels run: grids, streams, shared memory, and the meeting points of a block's threads and of a warp's lanes.

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>
#include <type_traits>

/// Variables, not macros: cudaLaunchConfig_t has members of these names.
extern constinit thread_local uint3 threadIdx;
extern constinit thread_local uint3 blockIdx;
extern constinit thread_local dim3 blockDim;
extern constinit thread_local dim3 gridDim;
inline constexpr int warpSize = 32;

namespace espalier::emulation {

inline constexpr std::uint32_t all_lanes_of_warp = 0xffffffffU;

/// A call in a kernel, for messages; all texts are literals. Two calls are the same when file and line are.
struct Place {
    const char* operation;
    const char* file;
    int line;

    bool operator==(const Place& other) const {
        return line == other.line && (file == other.file || std::string_view(file) == other.file);
    }
};

/// Runs `thread` once for every thread of the grid, now. Aborts with a sentence when threads wait for each other in
/// vain, or where a GPU would refuse the launch.
void run_grid(dim3 grid, dim3 block, std::size_t dynamic_shared_bytes, const std::function<void()>& thread);

/// Puts work at the end of a stream.
void enqueue(cudaStream_t stream, std::function<void()> work);

/// The current block's dynamic shared memory; null when the launch asked for none.
void* dynamic_shared();

/// A static shared array of a kernel: its memory, and the launch that it was last used in.
struct SharedArraySite {
    std::byte* memory = nullptr;
    std::size_t bytes = 0;
    std::uint64_t launch = 0;
};

void* shared_memory_of(SharedArraySite& site, std::size_t bytes);

/// Memory on the heap, one array a block, exact in size and filled with 0xff at the start of every block.
template <typename T>
T* shared_array(std::size_t count, SharedArraySite& site) {
    static_assert(std::is_trivially_copyable_v<T>);
    return static_cast<T*>(shared_memory_of(site, count * sizeof(T)));
}

/// cp.async of the calling thread: starts a copy (no source: zeros), ends a group of them, waits until at most the last
/// `left` groups are under way (asynchronous_copies.h).
void copy_asynchronously(void* to, const void* from, std::size_t bytes);
void commit_copies();
void wait_for_copies(unsigned left);

/// Waits for all threads of the block. Returns how many of them passed a predicate other than 0.
int wait_for_block(bool predicate, Place place);

inline constexpr std::size_t most_exchanged_bytes = 64;  // of each lane

extern constinit thread_local int lane_of_thread;
/// Of the calling thread in its warp.
inline int current_lane() {
    return lane_of_thread;
}

/// Room for a value of every lane, aligned to 64 bytes. The calling lane puts its own there, then calls
/// `wait_for_lanes`. `whole_warp`: a warp with fewer than 32 lanes is an error.
std::byte* begin_exchange(std::uint32_t mask, Place place, bool whole_warp = false);
/// Waits for the lanes of `begin_exchange`.
void wait_for_lanes();
/// Lanes of `mask` that exist: the last warp of a block may be shorter.
std::uint32_t existing_lanes(std::uint32_t mask);

/// The values of the lanes in `mask`, by lane; valid until the calling lane's next exchange.
template <typename Value>
const Value* exchange_in_warp(std::uint32_t mask, const Value& mine, Place place, bool whole_warp = false) {
    static_assert(std::is_trivially_copyable_v<Value> && sizeof(Value) <= most_exchanged_bytes);
    auto* const values = reinterpret_cast<Value*>(begin_exchange(mask, place, whole_warp));
    std::construct_at(values + current_lane(), mine);
    wait_for_lanes();
    return values;
}

/// The values of all 32 lanes, by lane; valid until the calling lane's next exchange.
template <typename Payload>
const Payload* share_in_warp(const Payload& mine, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return exchange_in_warp(all_lanes_of_warp, mine, {"share_in_warp", file, line}, true);
}

}  // namespace espalier::emulation

#define ESPALIER_SHARED_ARRAY(T, name, count)                              \
    static constinit ::espalier::emulation::SharedArraySite name##_site{}; \
    T* const name = ::espalier::emulation::shared_array<T>(count, name##_site)
