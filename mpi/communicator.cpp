#include "mpi/communicator.h"

namespace espalier {

std::unique_ptr<Exchange> Communicator::start_all_to_all(std::span<std::byte> data,
                                                         std::span<const std::size_t> offsets) {
    std::vector<Message> sends, receives;
    const auto add_part = [&](std::vector<Message>& messages, int owner, int peer) {
        const auto r = static_cast<std::size_t>(owner);
        messages.push_back({peer, data.data() + offsets[r], offsets[r + 1] - offsets[r]});
    };
    for (int peer = 0; peer < size(); ++peer) {
        if (peer == rank()) continue;
        add_part(sends, rank(), peer);
        add_part(receives, peer, peer);
    }
    return start_messages(sends, receives);
}

}  // namespace espalier
