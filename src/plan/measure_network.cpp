#include "src/plan/measure_network.h"

#include "mpi/tensor_communicator.h"
#include "src/base/clock.h"
#include "src/base/error.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <vector>

namespace espalier {

namespace {

/// Where a rank is, and with whom it is measured.
struct Place {
    std::optional<int> inside, between;  ///< the peer on this machine, the one on the next
};

/// Ranks on each machine. Throws InputError.
std::size_t ranks_per_machine(const Session& session) {
    const std::vector<int> sizes = session.world().all_gather_value(session.local_size()),
                           places = session.world().all_gather_value(session.local_rank());
    for (std::size_t rank = 0; rank < sizes.size(); ++rank) {
        const bool in_order = places[rank] == static_cast<int>(rank) % sizes[0];
        if (sizes[rank] == sizes[0] && in_order) continue;
        throw InputError(fmt::format(
            "rank {} is rank {} of {} on its machine, and rank 0 one of {}: the network is measured between "
            "equally many ranks on every machine, one machine after the other (srun --nodes=N "
            "--ntasks-per-node=P --distribution=block, mpirun --map-by ppr:P:node)",
            rank, places[rank], sizes[rank], sizes[0]));
    }
    return static_cast<std::size_t>(sizes[0]);
}

/// Pairs of neighbours, on one machine and of neighbouring machines; one of an odd number has none.
Place place_of(const Session& session, std::size_t per_machine) {
    const std::size_t rank = static_cast<std::size_t>(session.rank()), local = rank % per_machine,
                      machine = rank / per_machine, machines = static_cast<std::size_t>(session.size()) / per_machine;
    Place place;
    if ((local ^ 1) < per_machine) place.inside = static_cast<int>(machine * per_machine + (local ^ 1));
    if ((machine ^ 1) < machines) place.between = static_cast<int>((machine ^ 1) * per_machine + local);
    return place;
}

class PairTimer {
  public:
    PairTimer(Communicator& control, Device& device)
        : control_(control),
          device_(device),
          tensors_(control, device),
          out_(device.make_tensor(DType::u8, 1, large)),
          in_(device.make_tensor(DType::u8, 1, large)) {}

    /// Of messages of `bytes` bytes together that go both ways between the pairs, of which the slowest counts.
    double seconds(std::optional<int> peer, std::size_t messages, std::size_t bytes) {
        std::size_t calls = 1;
        const auto timed = [&] {
            control_.barrier();
            const Stopwatch stopwatch;
            for (std::size_t i = 0; i < calls; ++i) call(peer, messages, bytes);
            device_.synchronize();
            const double mine = peer ? stopwatch.seconds() / static_cast<double>(calls) : 0.0;
            const std::vector<double> of_ranks = control_.all_gather_value(mine);
            return *std::max_element(of_ranks.begin(), of_ranks.end());
        };
        timed();  // connections are made
        // About 20 ms; every rank finds the same number.
        calls = static_cast<std::size_t>(std::clamp(0.02 / timed(), 1.0, 1000.0));
        std::array<double, 3> times = {timed(), timed(), timed()};
        std::sort(times.begin(), times.end());
        return times[1];
    }
    LinkModel link(std::optional<int> peer) {
        const double latency = seconds(peer, 1, small);
        const double with_bytes = seconds(peer, 1, large);
        return {latency, static_cast<double>(large) / std::max(with_bytes - latency, with_bytes / 100)};
    }
    /// What each message beside the first costs.
    double message_overhead(std::optional<int> peer) {
        constexpr std::size_t messages = 16;
        return std::max(0.0, seconds(peer, messages, messages * small) - seconds(peer, 1, small)) / (messages - 1);
    }

  private:
    static constexpr std::size_t small = 8, large = std::size_t{16} << 20;

    void call(std::optional<int> peer, std::size_t messages, std::size_t bytes) {
        if (!peer) return;
        std::vector<Message> sends, receives;
        const std::size_t each = bytes / messages;
        for (std::size_t i = 0; i < messages; ++i) {
            sends.push_back({*peer, out_.view().data + i * each, each});
            receives.push_back({*peer, in_.view().data + i * each, each});
        }
        tensors_.get().start_exchange(sends, receives)->finish();
    }

    Communicator& control_;
    Device& device_;
    TensorCommunicator tensors_;
    Tensor out_, in_;
};

}  // namespace

MeasuredNetwork measure_network(const Session& session, Device& device, const NetworkModel& like,
                                const std::string& like_name) {
    MeasuredNetwork measured{like, ""};
    const std::size_t per_machine = ranks_per_machine(session);
    const std::size_t machines = static_cast<std::size_t>(session.size()) / per_machine;
    const Place place = place_of(session, per_machine);
    std::optional<PairTimer> timer;
    if (session.size() > 1) timer.emplace(session.world(), device);
    if (per_machine > 1) {
        measured.model.inside = timer->link(place.inside);
        measured.model.message_overhead = timer->message_overhead(place.inside);
    }
    if (machines > 1) {
        measured.model.between = timer->link(place.between);
        measured.model.ranks_per_machine = per_machine;
        if (per_machine == 1) measured.model.message_overhead = timer->message_overhead(place.between);
    }
    const std::string ranks = fmt::format("{} rank(s) on each of {} machine(s)", per_machine, machines);
    if (per_machine > 1 && machines > 1) {
        measured.origin = "network measured between " + ranks;
    } else if (per_machine > 1) {
        measured.origin =
            "links of a machine measured between " + ranks + ", those between machines as of " + like_name;
    } else if (machines > 1) {
        measured.origin =
            "links between machines measured between " + ranks + ", those of a machine as of " + like_name;
    } else {
        measured.origin = "network assumed as of " + like_name;
    }
    return measured;
}

}  // namespace espalier
