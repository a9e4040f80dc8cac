#include "src/base/json.h"

#include "src/base/error.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <limits>
#include <ostream>
#include <utility>

namespace espalier {

namespace {

constexpr std::size_t deepest = 64;

[[noreturn]] void refuse(const Json& json, const std::string& expected) {
    const bool has_parts = json.is_array() || json.is_object();
    const std::string found =
        has_parts ? (json.is_array() ? "an array of " : "an object of ") + std::to_string(json.size()) + " elements"
                  : json.ascii().substr(0, 100);
    throw Json::Error("found " + found + ", expected " + expected);
}

/// Builds the value event by event and throws on the first violation. (nlohmann's own callback parser looks through the
/// parent at the end of every object: quadratic time for a hostile header.)
class StrictBuilder final : public nlohmann::json_sax<nlohmann::json> {
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
            throw InputError(source_ + ": key " + Json(name).ascii() + " occurs twice");
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
        Json& innermost = *open_.back();
        if (innermost.is_array()) {
            innermost.push_back(std::move(value));
            return &innermost[innermost.size() - 1];
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

nlohmann::json to_nlohmann(const Json& json) {
    if (json.is_object()) {
        nlohmann::json object = nlohmann::json::object();
        for (const auto& [key, value] : json.items()) object[key] = to_nlohmann(value);
        return object;
    }
    if (json.is_array()) {
        nlohmann::json array = nlohmann::json::array();
        for (const Json& value : json) array.push_back(to_nlohmann(value));
        return array;
    }
    if (json.is_null()) return nullptr;
    if (json.is_boolean()) return json.get<bool>();
    if (json.is_string()) return json.get<std::string>();
    if (json.is_number_unsigned()) return json.get<std::uint64_t>();
    if (json.is_number_integer()) return json.get<std::int64_t>();
    return json.get<double>();
}

bool is_pair_with_a_key(const Json& json) {
    return json.is_array() && json.size() == 2 && json[0].is_string();
}

}  // namespace

Json::Json(Value value) : value_(std::move(value)) {}
Json::Json(std::string text) : value_(std::make_unique<std::string>(std::move(text))) {}
Json::Json(Array values) : value_(std::make_unique<Array>(std::move(values))) {}
Json::Json(Object values) : value_(std::make_unique<Object>(std::move(values))) {}
Json::Json(std::initializer_list<Json> list) {
    if (!std::all_of(list.begin(), list.end(), is_pair_with_a_key)) {
        value_ = std::make_unique<Array>(list);
        return;
    }
    auto object = std::make_unique<Object>();
    for (const Json& pair : list) object->insert_or_assign(pair[0].string(), pair[1]);
    value_ = std::move(object);
}
Json::Json(const Json& other) {
    if (other.is_array()) {
        value_ = std::make_unique<Array>(other.elements());
    } else if (other.is_object()) {
        value_ = std::make_unique<Object>(other.items());
    } else if (other.is_string()) {
        value_ = std::make_unique<std::string>(other.string());
    } else {
        std::visit(
            [&](const auto& value) {
                if constexpr (std::is_copy_constructible_v<std::remove_cvref_t<decltype(value)>>) value_ = value;
            },
            other.value_);
    }
}
Json::Json(Json&& other) noexcept : value_(std::exchange(other.value_, nullptr)) {}
Json& Json::operator=(const Json& other) {
    return *this = Json(other);
}
Json& Json::operator=(Json&& other) noexcept {
    value_ = std::exchange(other.value_, nullptr);
    return *this;
}
Json::~Json() = default;

Json Json::parse(std::string_view text) {
    return parse_strict_json(text, "JSON text");
}
Json Json::parse_or_null(std::string_view text) {
    try {
        return parse(text);
    } catch (const InputError&) {
        return {};
    }
}
Json Json::array(Array values) {
    return Json(std::move(values));
}
Json Json::object() {
    return Json(Object());
}

bool Json::boolean() const {
    if (!is_boolean()) refuse(*this, "true or false");
    return std::get<bool>(value_);
}

const std::string& Json::string() const {
    if (!is_string()) refuse(*this, "a string");
    return *std::get<StringPointer>(value_);
}

double Json::number() const {
    if (is_number_unsigned()) return static_cast<double>(std::get<std::uint64_t>(value_));
    if (is_number_integer()) return static_cast<double>(std::get<std::int64_t>(value_));
    if (!is_number()) refuse(*this, "a number");
    return std::get<double>(value_);
}

std::int64_t Json::integer(std::int64_t least, std::uint64_t most) const {
    if (is_number_unsigned() && std::get<std::uint64_t>(value_) <= most) {
        return static_cast<std::int64_t>(std::get<std::uint64_t>(value_));
    }
    if (!is_number_integer() || is_number_unsigned() || std::get<std::int64_t>(value_) < least) {
        refuse(*this, "an integer from " + std::to_string(least) + " to " + std::to_string(most));
    }
    return std::get<std::int64_t>(value_);
}

std::size_t Json::size() const {
    if (is_array()) return elements().size();
    if (is_object()) return items().size();
    return is_null() ? 0 : 1;
}

const Json* Json::find(std::string_view key) const {
    if (!is_object()) return nullptr;
    const Object& object = items();
    const auto found = object.find(key);
    return found == object.end() ? nullptr : &found->second;
}

const Json& Json::at(std::string_view key) const {
    if (!is_object()) refuse(*this, "an object with the key '" + std::string(key) + "'");
    const Json* found = find(key);
    if (found == nullptr) throw Error("the key '" + std::string(key) + "' is missing");
    return *found;
}

const Json& Json::element(std::size_t place) const {
    if (place >= elements().size()) refuse(*this, "more than " + std::to_string(place) + " elements");
    return elements()[place];
}

Json& Json::operator[](std::string_view key) {
    if (is_null()) value_ = std::make_unique<Object>();
    if (!is_object()) refuse(*this, "an object");
    Object& object = *std::get<ObjectPointer>(value_);
    const auto found = object.find(key);
    return found != object.end() ? found->second : object[std::string(key)];
}

const Json::Object& Json::items() const& {
    static const Object none;
    if (is_null()) return none;
    if (!is_object()) refuse(*this, "an object");
    return *std::get<ObjectPointer>(value_);
}

const Json::Array& Json::elements() const {
    if (!is_array()) refuse(*this, "an array");
    return *std::get<ArrayPointer>(value_);
}

void Json::push_back(Json value) {
    if (is_null()) value_ = std::make_unique<Array>();
    if (!is_array()) refuse(*this, "an array");
    std::get<ArrayPointer>(value_)->push_back(std::move(value));
}

void Json::update(const Json& object) {
    for (const auto& [key, value] : object.items()) (*this)[key] = value;
}

void Json::erase(std::string_view key) {
    if (!is_object()) refuse(*this, "an object");
    std::get<ObjectPointer>(value_)->erase(std::string(key));
}

void Json::erase_element(std::size_t place) {
    static_cast<void>(element(place));
    Array& array = *std::get<ArrayPointer>(value_);
    array.erase(array.begin() + static_cast<std::ptrdiff_t>(place));
}

std::string Json::dump(int indent) const {
    try {
        return to_nlohmann(*this).dump(indent);
    } catch (const nlohmann::json::exception& error) {
        throw Error(error.what());
    }
}

std::string Json::ascii() const {
    return to_nlohmann(*this).dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
}

bool operator==(const Json& a, const Json& b) {
    if (a.is_array() && b.is_array()) return a.elements() == b.elements();
    if (a.is_object() && b.is_object()) return a.items() == b.items();
    if (a.is_string() && b.is_string()) return a.string() == b.string();
    if (a.is_number() && b.is_number() && a.value_.index() != b.value_.index()) return a.number() == b.number();
    return a.value_ == b.value_;
}

std::ostream& operator<<(std::ostream& out, const Json& json) {
    return out << json.ascii();
}

Json parse_strict_json(std::string_view text, const std::string& source) {
    if (text.find('\0') != std::string_view::npos) {
        throw InputError(source + ": not valid JSON (a NUL byte, at which the parser would stop)");
    }
    Json root;
    StrictBuilder builder(source, root);
    nlohmann::json::sax_parse(text, &builder);
    return root;
}

std::string with_json_field(std::string_view text, const std::string& source, std::string_view key,
                            std::string_view value) {
    if (!parse_strict_json(text, source).is_object()) throw InputError(source + " is not a JSON object");
    nlohmann::ordered_json object = nlohmann::ordered_json::parse(text);
    object[std::string(key)] = std::string(value);
    return object.dump(2);
}

}  // namespace espalier
