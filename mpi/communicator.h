#pragma once
/// The data plane: a few typed verbs on spans of device memory, among the ranks of one group. What is summed in which
/// order stands above it (ordered_sum.h); no verb here adds floating-point numbers.
///
/// Every verb is collective over the group unless it says otherwise. Failures throw Error; a wait is bounded by the
/// deadline of the implementation.

#include "mpi/communication_ledger.h"
#include "src/base/error.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace espalier {

/// One message of an exchange. The memory must stay valid and, for a receive, untouched until the exchange is finished.
struct Message {
    int peer = 0;
    std::byte* data = nullptr;
    std::size_t bytes = 0;
};

/// An exchange under way. finish() waits for all of its messages; the destructor finishes a forgotten one.
class Exchange {
  public:
    Exchange() = default;
    Exchange(const Exchange&) = delete;
    Exchange& operator=(const Exchange&) = delete;
    virtual ~Exchange() = default;
    virtual void finish() = 0;
};

class Communicator {
  public:
    Communicator() = default;
    Communicator(const Communicator&) = delete;
    Communicator& operator=(const Communicator&) = delete;
    virtual ~Communicator() = default;

    virtual int rank() const = 0;
    virtual int size() const = 0;
    /// The number among all ranks of the program of this group's `rank`.
    virtual int world_rank(int rank) const { return rank; }

    /// Where the run is, for the sentence of a wait that takes too long: "block 3". Local.
    void set_place(std::string place) { place_ = std::move(place); }

    /// Copies the span of `root` to every rank; all ranks pass spans of one size.
    template <typename T>
    void broadcast(std::span<T> data, int root) {
        static_assert(std::is_trivially_copyable_v<T>);
        const std::size_t bytes = size() > 1 ? data.size_bytes() : 0;
        ledger_.add(CommunicationVerb::broadcast, rank() == root ? bytes : 0, rank() == root ? 0 : bytes);
        broadcast_bytes(std::as_writable_bytes(data), root);
    }

    /// Every rank contributes the part [offsets[rank], offsets[rank + 1]) of `data`, in place, and gets all the
    /// others':
    ///   rank 0: [a . . .]      [a b c d]
    ///   rank 1: [. b . .]  ->  [a b c d]
    ///   rank 2: [. . c .]      [a b c d]
    ///   rank 3: [. . . d]      [a b c d]
    /// offsets has size() + 1 ascending entries, the same on every rank; parts may be empty.
    template <typename T>
    void all_gather(std::span<T> data, std::span<const std::size_t> offsets) {
        start_all_gather(data, offsets)->finish();
    }

    /// all_gather that does not wait: the parts travel until the exchange is finished, and `data` is left alone so
    /// long.
    template <typename T>
    std::unique_ptr<Exchange> start_all_gather(std::span<T> data, std::span<const std::size_t> offsets) {
        static_assert(std::is_trivially_copyable_v<T>);
        require(offsets.size() == static_cast<std::size_t>(size()) + 1 && offsets.back() <= data.size(),
                "offsets of all_gather");
        std::vector<std::size_t> byte_offsets(offsets.begin(), offsets.end());
        for (std::size_t& offset : byte_offsets) offset *= sizeof(T);
        const auto me = static_cast<std::size_t>(rank());
        const std::size_t own = byte_offsets[me + 1] - byte_offsets[me];
        ledger_.add(CommunicationVerb::all_gather, size() > 1 ? own : 0,
                    byte_offsets.back() - byte_offsets.front() - own);
        return start_all_gather_bytes(std::as_writable_bytes(data), byte_offsets);
    }

    /// One value of each rank, in rank order.
    template <typename T>
    std::vector<T> all_gather_value(const T& value) {
        std::vector<T> values(static_cast<std::size_t>(size()));
        std::vector<std::size_t> offsets(values.size() + 1);
        for (std::size_t i = 0; i < offsets.size(); ++i) offsets[i] = i;
        values[static_cast<std::size_t>(rank())] = value;
        all_gather(std::span<T>(values), offsets);
        return values;
    }

    /// Starts sending and receiving; not collective, but every send needs its receive. Between two ranks messages
    /// arrive in the order in which they were started. A message to oneself is not allowed.
    std::unique_ptr<Exchange> start_exchange(std::span<const Message> sends, std::span<const Message> receives) {
        ledger_.add(CommunicationVerb::exchange, bytes_of(sends), bytes_of(receives));
        return start_messages(sends, receives);
    }

    void barrier() {
        ledger_.add(CommunicationVerb::barrier, 0, 0);
        wait_for_all();
    }

    /// What this rank has communicated through this object so far. Local.
    const CommunicationLedger& ledger() const { return ledger_; }

  protected:
    const std::string& place() const { return place_; }
    static std::size_t bytes_of(std::span<const Message> messages) {
        std::size_t bytes = 0;
        for (const Message& message : messages) bytes += message.bytes;
        return bytes;
    }
    virtual std::unique_ptr<Exchange> start_messages(std::span<const Message> sends,
                                                     std::span<const Message> receives) = 0;
    virtual void wait_for_all() = 0;
    virtual void broadcast_bytes(std::span<std::byte> data, int root) = 0;
    virtual std::unique_ptr<Exchange> start_all_gather_bytes(std::span<std::byte> data,
                                                             std::span<const std::size_t> offsets) = 0;
    /// all_gather as messages from every rank to every other.
    std::unique_ptr<Exchange> start_all_to_all(std::span<std::byte> data, std::span<const std::size_t> offsets);

  private:
    CommunicationLedger ledger_;
    std::string place_;
};

/// The communicator of a process that is alone.
std::unique_ptr<Communicator> make_single_communicator();

}  // namespace espalier
