#pragma once
/// events.jsonl: one JSON object a line, appended as things happen, for machines.

#include "src/base/json.h"

#include <filesystem>
#include <fstream>
#include <string>

namespace espalier {

class EventLog {
  public:
    /// Appends to `path`. Throws ResourceError when it cannot be opened.
    explicit EventLog(const std::filesystem::path& path);

    /// Adds "event" and "time" (UTC) and writes the line at once. Throws ResourceError.
    void write(const std::string& event, Json fields);

  private:
    std::filesystem::path path_;
    std::ofstream stream_;
};

/// Now, as "2026-11-24T10:57:20Z".
std::string utc_time();

}  // namespace espalier
