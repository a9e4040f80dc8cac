#pragma once
/// The emulation's variables (README.md). They are read once, at first use; tests change them between launches.

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace espalier::emulation {

/// Which of the threads that can go on does.
enum class Order {
    forward,  ///< the lowest warp, its lowest lane
    reverse,  ///< the highest warp, its highest lane; blocks from the last to the first
    greedy,   ///< the warp of the highest priority runs as far as it can; priorities drawn for each block
    random,   ///< any thread
};

/// A call of NCCL that fails (nccl_fault.h).
struct NcclFault {
    std::string call;
    int calls_until = 1;  ///< it fails
    int rank = -1;        ///< in MPI_COMM_WORLD; -1: all
};

struct Settings {
    Order order = Order::forward;
    std::uint64_t seed = 1;
    bool lazy_streams = false;  ///< work waits until something synchronises
    int gpus = 1;
    std::vector<int> visible_gpus;  ///< of the machine's, as CUDA_VISIBLE_DEVICES lists them; empty: 0 ... gpus - 1
    std::size_t gpu_memory = std::size_t{8} << 30;  ///< bytes, of each GPU
    std::size_t shared_memory = 232448;             ///< bytes that a block may ask for: an H100's
    NcclFault nccl_fault;
};

Settings& settings();

}  // namespace espalier::emulation
