#pragma once
/// What a misspelt name was to be.

#include <string>
#include <vector>

namespace espalier {

/// The one of `known` that differs from `name` in the fewest letters (to insert, remove, replace, or swap with their
/// neighbour); empty when none comes near: more than a quarter of the letters, and one, are wrong.
std::string nearest_name(const std::string& name, const std::vector<std::string>& known);

/// "; did you mean NAME?", or nothing for an empty name.
std::string did_you_mean(const std::string& name);

}  // namespace espalier
