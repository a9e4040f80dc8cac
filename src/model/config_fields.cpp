#include "src/model/config_fields.h"

#include "src/base/error.h"

#include <cstdint>

namespace espalier {

void ConfigFields::fail(const char* name, const std::string& expected) const {
    const std::string found = has(name) ? object_[name].ascii() : "missing";
    throw InputError(source_ + ": '" + name + "' is " + found + "; " + expected);
}

std::size_t ConfigFields::size(const char* name, std::optional<std::size_t> otherwise) const {
    if (!has(name) && otherwise) return *otherwise;
    constexpr std::uint64_t largest = std::uint64_t{1} << 31;
    if (!has(name) || !value(name).is_number_unsigned() || value(name).get<std::uint64_t>() == 0 ||
        value(name).get<std::uint64_t>() > largest) {
        fail(name, "a positive integer is expected");
    }
    return value(name).get<std::size_t>();
}

double ConfigFields::number(const char* name, std::optional<double> otherwise) const {
    if (!has(name) && otherwise) return *otherwise;
    if (!has(name) || !value(name).is_number() || !(value(name).get<double>() > 0)) {
        fail(name, "a positive number is expected");
    }
    return value(name).get<double>();
}

std::vector<double> ConfigFields::numbers(const char* name, std::size_t count) const {
    const std::string expected = "a list of " + std::to_string(count) + " positive numbers is expected";
    if (!has(name) || !value(name).is_array() || value(name).size() != count) fail(name, expected);
    std::vector<double> numbers;
    for (const Json& entry : value(name)) {
        if (!entry.is_number() || !(entry.get<double>() > 0)) fail(name, expected);
        numbers.push_back(entry.get<double>());
    }
    return numbers;
}

bool ConfigFields::boolean(const char* name, bool otherwise) const {
    if (!has(name)) return otherwise;
    if (!value(name).is_boolean()) fail(name, "true or false is expected");
    return value(name).get<bool>();
}

std::string ConfigFields::text(const char* name, const std::string& otherwise) const {
    if (!has(name)) return otherwise;
    if (!value(name).is_string()) fail(name, "a string is expected");
    return value(name).get<std::string>();
}

ConfigFields ConfigFields::inner(const char* name) const {
    if (!has(name) || !value(name).is_object()) fail(name, "an object is expected");
    return {value(name), source_ + ": " + name};
}

}  // namespace espalier
