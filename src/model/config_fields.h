#pragma once
/// Typed access to the fields of config.json, or of an object in it. null counts as absent.

#include "src/base/json.h"

#include <cstddef>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace espalier {

/// Every access throws InputError that begins with the source and names the field, what it holds and what is expected.
class ConfigFields {
  public:
    /// `object` outlives it; `source`: "path/config.json".
    ConfigFields(const Json& object, std::string source) : object_(object), source_(std::move(source)) {}

    bool has(const char* name) const { return object_.contains(name) && !object_[name].is_null(); }
    const Json& value(const char* name) const { return object_[name]; }
    const Json& object() const { return object_; }
    const std::string& source() const { return source_; }

    [[noreturn]] void fail(const char* name, const std::string& expected) const;
    /// A positive integer up to 2^31.
    std::size_t size(const char* name, std::optional<std::size_t> otherwise = {}) const;
    /// A positive number.
    double number(const char* name, std::optional<double> otherwise = {}) const;
    /// `count` positive numbers.
    std::vector<double> numbers(const char* name, std::size_t count) const;
    bool boolean(const char* name, bool otherwise) const;
    std::string text(const char* name, const std::string& otherwise) const;
    /// The fields of an object.
    ConfigFields inner(const char* name) const;

  private:
    const Json& object_;
    std::string source_;
};

}  // namespace espalier
