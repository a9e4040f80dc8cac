#pragma once
/// What a rank has communicated: calls and bytes by verb. Counted by Communicator itself, so that a run, a dry run and
/// a plan count alike.

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace espalier {

enum class CommunicationVerb { broadcast, all_gather, exchange, barrier };
inline constexpr std::size_t communication_verbs = 4;
inline constexpr std::array<std::string_view, communication_verbs> verb_names = {"broadcast", "all_gather", "exchange",
                                                                                 "barrier"};

/// A rank's own view: a broadcast's root sends its bytes once, an all-gather sends the own part and receives the rest;
/// what a network makes of that is NetworkModel's.
struct CommunicationCount {
    std::uint64_t calls = 0;
    std::uint64_t bytes_sent = 0;
    std::uint64_t bytes_received = 0;

    bool operator==(const CommunicationCount&) const = default;
    CommunicationCount& operator+=(const CommunicationCount& other) {
        calls += other.calls;
        bytes_sent += other.bytes_sent;
        bytes_received += other.bytes_received;
        return *this;
    }
    CommunicationCount& operator-=(const CommunicationCount& other) {
        calls -= other.calls;
        bytes_sent -= other.bytes_sent;
        bytes_received -= other.bytes_received;
        return *this;
    }
};

struct CommunicationLedger {
    std::array<CommunicationCount, communication_verbs> counts{};

    const CommunicationCount& of(CommunicationVerb verb) const { return counts[static_cast<std::size_t>(verb)]; }
    void add(CommunicationVerb verb, std::size_t sent, std::size_t received) {
        counts[static_cast<std::size_t>(verb)] += {1, sent, received};
    }
    bool operator==(const CommunicationLedger&) const = default;
    CommunicationLedger& operator+=(const CommunicationLedger& other) {
        for (std::size_t v = 0; v < counts.size(); ++v) counts[v] += other.counts[v];
        return *this;
    }
    CommunicationLedger& operator-=(const CommunicationLedger& other) {
        for (std::size_t v = 0; v < counts.size(); ++v) counts[v] -= other.counts[v];
        return *this;
    }
};

}  // namespace espalier
