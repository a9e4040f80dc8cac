#pragma once
/// Values of an option and the words for them: one table for what is read and what is written.

#include "src/base/error.h"

#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

namespace espalier {

template <typename Value, std::size_t size>
struct NameTable {
    std::array<std::pair<Value, std::string_view>, size> entries;

    /// Throws BugError for a value that is not in the table.
    constexpr std::string_view name_of(Value value) const {
        for (const auto& [known, name] : entries) {
            if (known == value) return name;
        }
        throw BugError("internal error: a value without a name");
    }
    /// Throws InputError naming the option, "--target", and all words for it.
    Value value_of(std::string_view name, std::string_view option) const {
        std::string words;
        for (const auto& [value, known] : entries) {
            if (known == name) return value;
            words += (words.empty() ? "" : ", ") + std::string(known);
        }
        throw InputError(std::string(option) + " '" + std::string(name) + "' is not one of " + words);
    }
};

}  // namespace espalier
