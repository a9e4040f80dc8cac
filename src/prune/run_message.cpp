#include "src/prune/run_message.h"

namespace espalier {

namespace {

Json to_json(const WrittenBlock& written) {
    const FileRecord& file = written.record.file;
    return {{"block", written.block},
            {"file", file.file},
            {"bytes", file.bytes},
            {"xxh3_128", file.xxh3},
            {"metrics", written.record.metrics}};
}

Json to_json(const LearningRateChoice& choice) {
    return {{"learning_rate", choice.to_json()}};
}

Json to_json(const RankStopped& /*stopped*/) {
    return {{"stopped", true}};
}

Json to_json(const RankArrived& arrived) {
    return {{"arrived", arrived.stops}};
}

}  // namespace

std::string text_of(const RunMessage& message) {
    return std::visit([](const auto& known) { return to_json(known); }, message).dump();
}

RunMessage message_from_text(const std::string& text) {
    const Json json = Json::parse(text);
    if (json.contains("stopped")) return RankStopped{};
    if (json.contains("arrived")) return RankArrived{json["arrived"].get<bool>()};
    if (json.contains("learning_rate")) return LearningRateChoice::from_json(json["learning_rate"]);
    WrittenBlock written;
    written.block = json["block"].get<std::size_t>();
    written.record.file = {json["file"].get<std::string>(), json["bytes"].get<std::uint64_t>(),
                           json["xxh3_128"].get<std::string>()};
    written.record.metrics = json["metrics"];
    return written;
}

}  // namespace espalier
