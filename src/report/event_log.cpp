#include "src/report/event_log.h"

#include "src/base/error.h"

#include <array>
#include <ctime>

namespace espalier {

std::string utc_time() {
    const std::time_t now = std::time(nullptr);
    std::tm parts{};
    gmtime_r(&now, &parts);
    std::array<char, 32> text{};
    std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &parts);
    return text.data();
}

EventLog::EventLog(const std::filesystem::path& path) : path_(path), stream_(path, std::ios::app) {
    if (!stream_) throw ResourceError(path_.string() + " cannot be opened for writing");
}

void EventLog::write(const std::string& event, Json fields) {
    fields["event"] = event;
    fields["time"] = utc_time();
    stream_ << fields.dump() << '\n' << std::flush;
    if (!stream_) throw ResourceError(path_.string() + " cannot be written (disk full?)");
}

}  // namespace espalier
