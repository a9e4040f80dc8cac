#include "src/plan/network_model.h"

#include <algorithm>
#include <array>
#include <bit>

namespace espalier {

namespace {

double depth_of_tree(std::size_t ranks) {
    return ranks < 2 ? 0 : static_cast<double>(std::bit_width(ranks - 1));
}

}  // namespace

double NetworkModel::exchange_seconds(int rank, std::span<const Message> sends,
                                      std::span<const Message> receives) const {
    struct Traffic {
        std::size_t messages = 0;
        std::array<double, 2> bytes{};  // out, in
    };
    std::array<Traffic, 2> links;  // inside, between
    const auto count = [&](std::span<const Message> messages, std::size_t direction) {
        for (const Message& message : messages) {
            if (message.bytes == 0) continue;
            Traffic& link = links[on_one_machine(rank, message.peer) ? 0 : 1];
            ++link.messages;
            link.bytes[direction] += static_cast<double>(message.bytes);
        }
    };
    count(sends, 0);
    count(receives, 1);
    const auto seconds = [&](const Traffic& traffic, const LinkModel& link) {
        if (traffic.messages == 0) return 0.0;
        return link.latency + message_overhead * static_cast<double>(traffic.messages - 1) +
               std::max(traffic.bytes[0], traffic.bytes[1]) / link.bandwidth;
    };
    return std::max(seconds(links[0], inside), seconds(links[1], between));
}

LinkModel NetworkModel::slowest(std::size_t ranks) const {
    if (ranks == 0 || machine_of(ranks - 1) == machine_of(0)) return inside;
    // What all ranks need passes the border of every machine: the one with the fewest ranks has the fewest links.
    const std::size_t last = first_rank + ranks;
    std::size_t fewest = std::min(ranks, ranks_per_machine);
    for (std::size_t begin = first_rank; begin < last;) {
        const std::size_t end = std::min(last, (begin / ranks_per_machine + 1) * ranks_per_machine);
        fewest = std::min(fewest, end - begin);
        begin = end;
    }
    return {between.latency, std::min(inside.bandwidth, static_cast<double>(fewest) * between.bandwidth)};
}

double NetworkModel::broadcast_seconds(std::size_t ranks, std::size_t bytes) const {
    if (ranks < 2) return 0;
    const LinkModel link = slowest(ranks);
    return depth_of_tree(ranks) * link.latency + static_cast<double>(bytes) / link.bandwidth;
}

double NetworkModel::all_gather_seconds(std::size_t ranks, std::size_t bytes) const {
    if (ranks < 2) return 0;
    const LinkModel link = slowest(ranks);
    const double others = static_cast<double>(ranks - 1) / static_cast<double>(ranks);
    return depth_of_tree(ranks) * link.latency + others * static_cast<double>(bytes) / link.bandwidth;
}

double NetworkModel::barrier_seconds(std::size_t ranks) const {
    return ranks < 2 ? 0 : depth_of_tree(ranks) * slowest(ranks).latency;
}

}  // namespace espalier
