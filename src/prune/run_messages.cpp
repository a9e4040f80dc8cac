#include "src/prune/run_messages.h"

#include "src/prune/block_report.h"

#include <array>
#include <chrono>
#include <thread>

namespace espalier {

void RunMessages::post(const RunMessage& message) {
    session_.post_to_root(text_of(message));
    ++posted_;
}

bool RunMessages::agree_to_stop(bool stop) {
    post(RankArrived{stop});
    while (ledger_ != nullptr && arrived_ < session_.size()) {
        collect();
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    arrived_ = 0;
    std::array<char, 1> stops = {static_cast<char>(a_rank_stopped_)};
    session_.world().broadcast(std::span<char>(stops), 0);
    return stops[0] != 0;
}

void RunMessages::enter(const RankArrived& arrived) {
    a_rank_stopped_ = a_rank_stopped_ || arrived.stops;
    ++arrived_;
}

void RunMessages::enter(const WrittenBlock& written) {
    for (const std::string& sentence : WrittenReport::from_json(written.record.metrics).sentences) {
        progress_.line(sentence);
    }
    ledger_->record_block(written.block, written.record);
}

void RunMessages::collect() {
    if (ledger_ == nullptr) return;
    for (const std::string& text : session_.collect_posts()) {
        ++received_;
        std::visit([this](const auto& message) { enter(message); }, message_from_text(text));
    }
}

bool RunMessages::finish(std::size_t blocks) {
    while (ledger_ != nullptr && ledger_->blocks_done() < blocks && !a_rank_stopped_) {
        collect();
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    std::size_t posted = 0;
    for (const std::size_t count : session_.world().all_gather_value(posted_)) posted += count;
    while (ledger_ != nullptr && received_ < posted) collect();
    std::array<char, 1> complete = {static_cast<char>(ledger_ != nullptr && ledger_->blocks_done() == blocks)};
    session_.world().broadcast(std::span<char>(complete), 0);
    return complete[0] != 0;
}

}  // namespace espalier
