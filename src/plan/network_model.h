#pragma once
/// Seconds that a rank's messages take on a network, by latency and bandwidth (the α–β model): one pair inside of a
/// machine, one between machines. Directions are independent, and so are the two kinds of links.

#include "mpi/communicator.h"

#include <cstddef>
#include <span>

namespace espalier {

struct LinkModel {
    double latency = 0;    ///< seconds until the first byte arrives
    double bandwidth = 1;  ///< bytes a second of one rank, each way
};

struct NetworkModel {
    LinkModel inside{5e-6, 350e9};
    LinkModel between{1e-5, 45e9};
    std::size_t ranks_per_machine = 8;
    double message_overhead = 1e-6;  ///< seconds of each message beyond the first
    std::size_t first_rank = 0;      ///< of the communicator among all ranks: where it meets machines' borders

    /// The same network for ranks first, first + 1 … of all.
    NetworkModel from_rank(std::size_t first) const {
        NetworkModel model = *this;
        model.first_rank = first;
        return model;
    }
    bool on_one_machine(int a, int b) const {
        return machine_of(static_cast<std::size_t>(a)) == machine_of(static_cast<std::size_t>(b));
    }
    /// Messages of `rank` that start together.
    double exchange_seconds(int rank, std::span<const Message> sends, std::span<const Message> receives) const;
    // Collectives over `ranks` ranks. Between machines the bytes pass the links of all of a machine's ranks side by
    // side, as NCCL's rings do.
    /// A pipelined tree: latency grows with its depth, the bytes pass each link once.
    double broadcast_seconds(std::size_t ranks, std::size_t bytes) const;
    /// A ring: every rank passes on all parts but one.
    double all_gather_seconds(std::size_t ranks, std::size_t bytes) const;
    double barrier_seconds(std::size_t ranks) const;

  private:
    std::size_t machine_of(std::size_t rank) const { return (first_rank + rank) / ranks_per_machine; }
    LinkModel slowest(std::size_t ranks) const;
};

}  // namespace espalier
