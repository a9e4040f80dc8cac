#include "src/plan/measure_network.h"

#include "mpi/tensor_communicator.h"
#include "src/base/clock.h"
#include "src/base/error.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

namespace espalier {

namespace {

/// Ranks that one rank sends to and receives from at a time.
struct Peers {
    std::vector<int> to, from;
};

/// The ranks of a session as machines of equally many.
class Machines {
  public:
    explicit Machines(const Session& session)
        : ranks_(session.local_size()),
          machines_(session.size() / session.local_size()),
          me_(session.local_rank()),
          machine_(session.rank() / session.local_size()) {}

    int ranks() const { return ranks_; }
    int machines() const { return machines_; }

    /// In a ring.
    Peers neighbour() const { return {{on_my_machine(me_ + 1)}, {on_my_machine(me_ - 1)}}; }
    Peers all_others() const {
        Peers peers;
        for (int distance = 1; distance < ranks_; ++distance) {
            peers.to.push_back(on_my_machine(me_ + distance));
            peers.from.push_back(on_my_machine(me_ - distance));
        }
        return peers;
    }
    /// Half of all machines away, so that bytes do not only pass the switch that neighbours share.
    Peers on_another_machine() const {
        const int distance = machines_ / 2;
        return {{on_machine(machine_ + distance)}, {on_machine(machine_ - distance)}};
    }

  private:
    int on_my_machine(int place) const { return machine_ * ranks_ + (place + ranks_) % ranks_; }
    int on_machine(int machine) const { return (machine + machines_) % machines_ * ranks_ + me_; }

    int ranks_, machines_, me_, machine_;
};

class MessageTimer {
  public:
    /// `bytes`: of an exchange that shows the bandwidth.
    MessageTimer(Communicator& control, Device& device, std::size_t bytes)
        : control_(control),
          device_(device),
          bytes_(bytes),
          tensors_(control, device),
          out_(device.make_tensor(DType::u8, 1, bytes, "messages")),
          in_(device.make_tensor(DType::u8, 1, bytes, "messages")) {}

    /// By NetworkModel::exchange_seconds, which counts the messages of both ways.
    double message_overhead(const Peers& peers) {
        constexpr std::size_t messages = 16;
        const double many = seconds(peers, messages, messages * small), one = seconds(peers, 1, small);
        return std::max(0.0, many - one) / (2 * (messages - 1));
    }
    LinkModel link(const Peers& neighbour, const Peers& many, double overhead) {
        // Where a message costs little beside its overhead the difference is noise, and no link is without latency.
        const double one = seconds(neighbour, 1, small), latency = std::max(one / 2, one - overhead);
        const double whole = seconds(many, 1, bytes_);
        const double others = latency + overhead * static_cast<double>(2 * many.to.size() - 1);
        // A short message's time may vary by more than a fast link needs for all bytes.
        return {latency, static_cast<double>(bytes_) / std::max(whole - others, whole / 10)};
    }

  private:
    static constexpr std::size_t small = 8;

    /// Of an exchange in which every rank sends `bytes` bytes and receives as many, as `messages` messages for each
    /// peer; of the slowest rank.
    double seconds(const Peers& peers, std::size_t messages, std::size_t bytes) {
        std::size_t calls = 1;
        const auto timed = [&] {
            control_.barrier();
            const Stopwatch stopwatch;
            for (std::size_t i = 0; i < calls; ++i) exchange(peers, messages, bytes);
            device_.synchronize();
            const double mine = stopwatch.seconds() / static_cast<double>(calls);
            const std::vector<double> of_ranks = control_.all_gather_value(mine);
            return *std::max_element(of_ranks.begin(), of_ranks.end());
        };
        timed();  // connections are made
        // About 20 ms; every rank finds the same number.
        calls = static_cast<std::size_t>(std::clamp(0.02 / timed(), 1.0, 1000.0));
        double fastest = timed();  // the others were disturbed
        for (int repeat = 0; repeat < 4; ++repeat) fastest = std::min(fastest, timed());
        return fastest;
    }
    void exchange(const Peers& peers, std::size_t messages, std::size_t bytes) {
        const std::size_t each = bytes / (messages * peers.to.size());
        const auto cut = [&](const std::vector<int>& ranks, const Tensor& tensor) {
            std::vector<Message> all;
            for (const int rank : ranks) {
                for (std::size_t i = 0; i < messages; ++i)
                    all.push_back({rank, tensor.view().data + all.size() * each, each});
            }
            return all;
        };
        tensors_.get().start_exchange(cut(peers.to, out_), cut(peers.from, in_))->finish();
    }

    Communicator& control_;
    Device& device_;
    std::size_t bytes_;
    TensorCommunicator tensors_;
    Tensor out_, in_;
};

}  // namespace

std::string placement_problem(const Session& session) {
    const std::vector<int> sizes = session.world().all_gather_value(session.local_size()),
                           places = session.world().all_gather_value(session.local_rank());
    for (std::size_t rank = 0; rank < sizes.size(); ++rank) {
        const bool in_order = places[rank] == static_cast<int>(rank) % sizes[0];
        if (sizes[rank] == sizes[0] && in_order) continue;
        return fmt::format(
            "the network is measured between equally many ranks on every machine, one machine after the other, but "
            "rank {} is number {} of {} on its machine and rank 0 one of {} (srun --nodes=N --ntasks-per-node=P "
            "--distribution=block, mpirun --map-by ppr:P:node)",
            rank, places[rank], sizes[rank], sizes[0]);
    }
    return {};
}

MeasuredNetwork measure_network(const Session& session, Device& device, const DeviceModel& like) {
    MeasuredNetwork measured{like.network, false, false, "network assumed as of " + like.name};
    if (session.size() == 1) return measured;
    const Machines machines(session);
    measured.inside = machines.ranks() > 1;
    measured.between = machines.machines() > 1;
    MessageTimer timer(session.world(), device, std::size_t{like.is_gpu ? 64U : 8U} << 20);
    NetworkModel& model = measured.model;
    model.message_overhead =
        timer.message_overhead(measured.inside ? machines.neighbour() : machines.on_another_machine());
    if (measured.inside) model.inside = timer.link(machines.neighbour(), machines.all_others(), model.message_overhead);
    if (measured.between) {
        const Peers peers = machines.on_another_machine();
        model.between = timer.link(peers, peers, model.message_overhead);
    }
    if (measured.inside && measured.between) model.ranks_per_machine = static_cast<std::size_t>(machines.ranks());
    const std::string ranks = fmt::format("{} rank(s) on each of {} machine(s)", machines.ranks(), machines.machines());
    if (measured.inside && measured.between) {
        measured.origin = "network measured between " + ranks;
    } else {
        measured.origin = fmt::format(
            "links {} measured between {}, the others and {} ranks to a machine assumed as of {}",
            measured.inside ? "of a machine" : "between machines", ranks, model.ranks_per_machine, like.name);
    }
    return measured;
}

}  // namespace espalier
