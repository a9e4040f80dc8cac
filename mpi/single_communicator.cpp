// One process: every collective is already done.
#include "mpi/communicator.h"
#include "src/base/error.h"

namespace espalier {

namespace {

class FinishedExchange final : public Exchange {
  public:
    void finish() override {}
};

class SingleCommunicator final : public Communicator {
  public:
    int rank() const override { return 0; }
    int size() const override { return 1; }

  protected:
    std::unique_ptr<Exchange> start_messages(std::span<const Message> sends,
                                             std::span<const Message> receives) override {
        require(sends.empty() && receives.empty(), "no messages in a group of one rank");
        return std::make_unique<FinishedExchange>();
    }
    void wait_for_all() override {}
    void broadcast_bytes(std::span<std::byte> /*data*/, int root) override {
        require(root == 0, "the only root of a group of one rank");
    }
    std::unique_ptr<Exchange> start_all_gather_bytes(std::span<std::byte> /*data*/,
                                                     std::span<const std::size_t> /*offsets*/) override {
        return std::make_unique<FinishedExchange>();
    }
};

}  // namespace

std::unique_ptr<Communicator> make_single_communicator() {
    return std::make_unique<SingleCommunicator>();
}

}  // namespace espalier
