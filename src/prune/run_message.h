#pragma once
/// What a rank tells rank 0 while a run goes on, and how it travels.

#include "src/blocks/block_writer.h"
#include "src/optimize/learning_rate_search.h"

#include <string>
#include <variant>

namespace espalier {

/// The rank stops before the end.
struct RankStopped {};
/// It waits for the others at the end of a round, and would stop there.
struct RankArrived {
    bool stops = false;
};

using RunMessage = std::variant<WrittenBlock, LearningRateChoice, RankStopped, RankArrived>;

std::string text_of(const RunMessage& message);
RunMessage message_from_text(const std::string& text);

}  // namespace espalier
