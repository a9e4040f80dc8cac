#pragma once
/// A JSON value, and how texts become one. nlohmann's library reads and writes the texts; its own class, a template
/// that takes seconds to compile in each file that sees it, stays inside json.cpp.

#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <iosfwd>
#include <limits>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace espalier {

/// Null, a boolean, a number, a string, an array or an object (whose keys are kept in alphabetical order).
///
/// As in nlohmann's library a list in braces is an object when each of its elements is a pair that begins with a
/// string, and an array otherwise: Json{{"a", 1}, {"b", {1, 2}}} is {"a": 1, "b": [1, 2]}. Json{other} is an array of
/// one; a copy is Json(other).
class Json {
  public:
    using Array = std::vector<Json>;
    using Object = std::map<std::string, Json, std::less<>>;

    /// A value of another kind than the one asked for, or a key or place that is not there.
    class Error : public std::runtime_error {
        using std::runtime_error::runtime_error;
    };

    // What a value can hold becomes one without a word: json["ranks"] = 3.
    // NOLINTBEGIN(google-explicit-constructor)
    Json() = default;  ///< null
    Json(std::nullptr_t) {}
    Json(std::string text);
    Json(std::string_view text) : Json(std::string(text)) {}
    Json(const char* text) : Json(std::string(text)) {}
    template <typename T>
    requires std::is_arithmetic_v<T> Json(T value) : Json(stored(value)) {}
    template <typename T>
    Json(const std::vector<T>& values) : Json(Array(values.begin(), values.end())) {}
    template <typename T>
    Json(const std::map<std::string, T>& values) : Json(Object(values.begin(), values.end())) {}
    Json(Array values);
    Json(Object values);
    Json(std::initializer_list<Json> list);
    // NOLINTEND(google-explicit-constructor)
    Json(const Json& other);
    Json(Json&& other) noexcept;
    Json& operator=(const Json& other);
    Json& operator=(Json&& other) noexcept;
    ~Json();

    /// As parse_strict_json, of a text of our own.
    static Json parse(std::string_view text);
    /// The same, but null when the text is no JSON: a file that may be torn.
    static Json parse_or_null(std::string_view text);
    static Json array(Array values = {});
    static Json object();

    [[nodiscard]] bool is_null() const { return value_.index() == 0; }
    [[nodiscard]] bool is_boolean() const { return std::holds_alternative<bool>(value_); }
    [[nodiscard]] bool is_number() const { return is_number_integer() || std::holds_alternative<double>(value_); }
    [[nodiscard]] bool is_number_integer() const {
        return is_number_unsigned() || std::holds_alternative<std::int64_t>(value_);
    }
    /// An integer that is not negative.
    [[nodiscard]] bool is_number_unsigned() const { return std::holds_alternative<std::uint64_t>(value_); }
    [[nodiscard]] bool is_string() const { return std::holds_alternative<StringPointer>(value_); }
    [[nodiscard]] bool is_array() const { return std::holds_alternative<ArrayPointer>(value_); }
    [[nodiscard]] bool is_object() const { return std::holds_alternative<ObjectPointer>(value_); }

    /// bool, an integer, double, std::string, or a std::map from names to one of them. Throws Error for another kind,
    /// and for a number that T cannot hold.
    template <typename T>
    [[nodiscard]] T get() const;

    /// Elements of an array or object; 0 for null, 1 for everything else.
    [[nodiscard]] std::size_t size() const;
    [[nodiscard]] bool empty() const { return size() == 0; }
    [[nodiscard]] bool contains(std::string_view key) const { return find(key) != nullptr; }
    /// The value under a key; nullptr when it is not there or this is no object.
    [[nodiscard]] const Json* find(std::string_view key) const;
    /// Throw Error when there is no such element.
    [[nodiscard]] const Json& at(std::string_view key) const;
    [[nodiscard]] const Json& at(std::integral auto place) const { return element(static_cast<std::size_t>(place)); }
    const Json& operator[](std::string_view key) const { return at(key); }
    const Json& operator[](std::integral auto place) const { return at(place); }
    /// Puts null under a key that is new; null itself becomes an object.
    Json& operator[](std::string_view key);
    Json& operator[](std::integral auto place) { return const_cast<Json&>(at(place)); }
    /// The value under `key`, or `otherwise` when it is not there.
    template <typename T>
    [[nodiscard]] T value(std::string_view key, T otherwise) const {
        const Json* found = find(key);
        return found == nullptr ? otherwise : found->get<T>();
    }

    /// Keys and values of an object; none of null.
    [[nodiscard]] const Object& items() const&;
    const Object& items() const&& = delete;  // they would go with their owner, before a loop over them
    /// Elements of an array.
    [[nodiscard]] Array::const_iterator begin() const { return elements().begin(); }
    [[nodiscard]] Array::const_iterator end() const { return elements().end(); }
    [[nodiscard]] const Json& back() const { return element(size() - 1); }

    void push_back(Json value);  ///< null becomes an array
    void update(const Json& object);
    void erase(std::string_view key);
    void erase(std::integral auto place) { erase_element(static_cast<std::size_t>(place)); }

    /// As text, in one line, or with `indent` spaces a level. NaN and infinity, which JSON lacks, become null. Throws
    /// Error for a string that is not UTF-8.
    [[nodiscard]] std::string dump(int indent = -1) const;
    /// In one line of ASCII, for messages: what is not UTF-8 becomes U+FFFD.
    [[nodiscard]] std::string ascii() const;

    friend bool operator==(const Json& a, const Json& b);
    friend std::ostream& operator<<(std::ostream& out, const Json& json);

  private:
    using StringPointer = std::unique_ptr<std::string>;
    using ArrayPointer = std::unique_ptr<Array>;
    using ObjectPointer = std::unique_ptr<Object>;
    // Sixteen bytes an element: a hostile file may hold a hundred million of them.
    using Value = std::variant<std::nullptr_t, bool, std::int64_t, std::uint64_t, double, StringPointer, ArrayPointer,
                               ObjectPointer>;

    explicit Json(Value value);
    template <typename T>
    static Value stored(T value) {
        if constexpr (std::is_same_v<T, bool>) {
            return value;
        } else if constexpr (std::is_floating_point_v<T>) {
            return static_cast<double>(value);
        } else {
            if (std::cmp_less(value, 0)) return static_cast<std::int64_t>(value);
            return static_cast<std::uint64_t>(value);
        }
    }
    [[nodiscard]] bool boolean() const;
    [[nodiscard]] const std::string& string() const;
    [[nodiscard]] double number() const;
    [[nodiscard]] std::int64_t integer(std::int64_t least, std::uint64_t most) const;
    [[nodiscard]] const Array& elements() const;
    [[nodiscard]] const Json& element(std::size_t place) const;
    void erase_element(std::size_t place);

    Value value_;
};

template <typename T>
struct JsonMap : std::false_type {};
template <typename T>
struct JsonMap<std::map<std::string, T>> : std::true_type {};

template <typename T>
T Json::get() const {
    if constexpr (std::is_same_v<T, bool>) {
        return boolean();
    } else if constexpr (std::is_same_v<T, double>) {
        return number();
    } else if constexpr (std::is_integral_v<T>) {
        return static_cast<T>(integer(static_cast<std::int64_t>(std::numeric_limits<T>::min()),
                                      static_cast<std::uint64_t>(std::numeric_limits<T>::max())));
    } else if constexpr (JsonMap<T>::value) {
        T values;
        for (const auto& [key, value] : items()) values[key] = value.template get<typename T::mapped_type>();
        return values;
    } else {
        static_assert(std::is_same_v<T, std::string>);
        return string();
    }
}

/// Parses one JSON value and nothing after it but white space. Throws InputError that begins with `source` (a file
/// name) and says where the text breaks, which key is twice, or that it nests deeper than 64 levels.
Json parse_strict_json(std::string_view text, const std::string& source);

/// The text of a JSON object, indented by two spaces, its keys in their order, with `value` under `key`: in the place
/// of what was there, or last. Throws InputError, which begins with `source`, for what is not one.
std::string with_json_field(std::string_view text, const std::string& source, std::string_view key,
                            std::string_view value);

}  // namespace espalier
