#include "src/prune/run_messages.h"

#include <array>
#include <chrono>
#include <thread>

namespace espalier {

void RunMessages::post(const Json& message) {
    session_.post_to_root(message.dump());
    ++posted_;
}

void RunMessages::post(const WrittenBlock& written) {
    const FileRecord& file = written.record.file;
    post(Json({{"block", written.block},
               {"file", file.file},
               {"bytes", file.bytes},
               {"xxh3_128", file.xxh3},
               {"metrics", written.record.metrics}}));
}

void RunMessages::post(const LearningRateChoice& choice) {
    post(Json({{"learning_rate", choice.to_json()}}));
}

void RunMessages::post_stopped() {
    post(Json({{"stopped", true}}));
}

bool RunMessages::agree_to_stop(bool stop) {
    post(Json({{"arrived", true}, {"stopped", stop}}));
    while (ledger_ != nullptr && arrived_ < session_.size()) {
        collect();
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    arrived_ = 0;
    std::array<char, 1> stops = {static_cast<char>(a_rank_stopped_)};
    session_.world().broadcast(std::span<char>(stops), 0);
    return stops[0] != 0;
}

void RunMessages::enter(const Json& message) {
    if (message.contains("stopped")) {
        a_rank_stopped_ = a_rank_stopped_ || message["stopped"].get<bool>();
        if (message.contains("arrived")) ++arrived_;
        return;
    }
    if (message.contains("learning_rate")) {
        ledger_->record_learning_rate(LearningRateChoice::from_json(message["learning_rate"]));
        return;
    }
    const FileRecord file{message["file"].get<std::string>(), message["bytes"].get<std::uint64_t>(),
                          message["xxh3_128"].get<std::string>()};
    const Json& metrics = message["metrics"];
    if (metrics.contains("sentences")) {
        for (const Json& sentence : metrics["sentences"]) progress_.line(sentence.get<std::string>());
    }
    ledger_->record_block(message["block"].get<std::size_t>(), {file, metrics});
}

void RunMessages::collect() {
    if (ledger_ == nullptr) return;
    for (const std::string& text : session_.collect_posts()) {
        ++received_;
        enter(Json::parse(text));
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
