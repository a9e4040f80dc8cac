#include "src/base/strict_json.h"

#include "src/base/error.h"

#include <set>
#include <vector>

namespace espalier {

namespace {

constexpr std::size_t deepest = 64;

/// Watches keys and depth while nlohmann::json builds the value; throws on the first violation.
class Watch {
  public:
    explicit Watch(const std::string& source) : source_(source) {}

    bool operator()(int /*depth*/, Json::parse_event_t event, Json& parsed) {
        switch (event) {
            case Json::parse_event_t::object_start:
            case Json::parse_event_t::array_start:
                keys_.emplace_back();
                if (keys_.size() > deepest) {
                    throw InputError(source_ + ": JSON nests deeper than " + std::to_string(deepest) + " levels");
                }
                break;
            case Json::parse_event_t::object_end:
            case Json::parse_event_t::array_end:
                keys_.pop_back();
                break;
            case Json::parse_event_t::key:
                if (!keys_.back().insert(parsed.get<std::string>()).second) {
                    throw InputError(source_ + ": key " + parsed.dump(-1, ' ', true, Json::error_handler_t::replace) +
                                     " occurs twice");
                }
                break;
            case Json::parse_event_t::value:
                break;
        }
        return true;
    }

  private:
    const std::string& source_;
    std::vector<std::set<std::string>> keys_;
};

}  // namespace

Json parse_strict_json(std::string_view text, const std::string& source) {
    Watch watch(source);
    try {
        return Json::parse(
            text, [&](int depth, Json::parse_event_t event, Json& parsed) { return watch(depth, event, parsed); });
    } catch (const Json::exception& error) {
        const std::string words = error.what();
        const std::size_t colon = words.find("parse error");
        throw InputError(source + ": not valid JSON (" + (colon == std::string::npos ? words : words.substr(colon)) +
                         ")");
    }
}

}  // namespace espalier
