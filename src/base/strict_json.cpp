#include "src/base/strict_json.h"

#include "src/base/error.h"

#include <vector>

template class nlohmann::basic_json<>;

namespace espalier {

namespace {

constexpr std::size_t deepest = 64;

/// Builds the value event by event and throws on the first violation. (nlohmann's own callback parser looks through the
/// parent at the end of every object: quadratic time for a hostile header.)
class StrictBuilder final : public nlohmann::json_sax<Json> {
  public:
    StrictBuilder(const std::string& source, Json& root) : source_(source), root_(root) {}

    bool null() override { return add(nullptr) != nullptr; }
    bool boolean(bool value) override { return add(value) != nullptr; }
    bool number_integer(number_integer_t value) override { return add(value) != nullptr; }
    bool number_unsigned(number_unsigned_t value) override { return add(value) != nullptr; }
    bool number_float(number_float_t value, const string_t& /*text*/) override { return add(value) != nullptr; }
    bool string(string_t& value) override { return add(std::move(value)) != nullptr; }
    bool binary(binary_t& /*value*/) override { return false; }
    bool start_object(std::size_t /*elements*/) override { return open(Json::object()); }
    bool start_array(std::size_t /*elements*/) override { return open(Json::array()); }
    bool end_object() override { return close(); }
    bool end_array() override { return close(); }

    bool key(string_t& name) override {
        if (open_.back()->contains(name)) {
            throw InputError(source_ + ": key " + Json(name).dump(-1, ' ', true, Json::error_handler_t::replace) +
                             " occurs twice");
        }
        place_ = &(*open_.back())[name];
        return true;
    }

    bool parse_error(std::size_t /*position*/, const std::string& /*token*/,
                     const nlohmann::detail::exception& error) override {
        const std::string words = error.what();
        const std::size_t start = words.find("parse error");
        throw InputError(source_ + ": not valid JSON (" + (start == std::string::npos ? words : words.substr(start)) +
                         ")");
    }

  private:
    /// Puts a value where the parser stands: the root, the end of an array, or under the last key.
    Json* add(Json value) {
        if (open_.empty()) {
            root_ = std::move(value);
            return &root_;
        }
        if (open_.back()->is_array()) {
            open_.back()->push_back(std::move(value));
            return &open_.back()->back();
        }
        *place_ = std::move(value);
        return place_;
    }
    bool open(Json value) {
        if (open_.size() >= deepest) {
            throw InputError(source_ + ": JSON nests deeper than " + std::to_string(deepest) + " levels");
        }
        open_.push_back(add(std::move(value)));
        return true;
    }
    bool close() {
        open_.pop_back();
        return true;
    }

    const std::string& source_;
    Json& root_;
    Json* place_ = nullptr;    ///< under the last key of the innermost object
    std::vector<Json*> open_;  ///< objects and arrays around the parser's place
};

}  // namespace

Json parse_strict_json(std::string_view text, const std::string& source) {
    if (text.find('\0') != std::string_view::npos) {
        throw InputError(source + ": not valid JSON (a NUL byte, at which the parser would stop)");
    }
    Json root;
    StrictBuilder builder(source, root);
    Json::sax_parse(text, &builder);
    return root;
}

}  // namespace espalier
