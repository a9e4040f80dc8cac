#include "src/cli/nearest_name.h"

#include <algorithm>
#include <string_view>

namespace espalier {

namespace {

/// Letters to insert, remove, replace, or swap with their neighbour.
std::size_t distance(std::string_view a, std::string_view b) {
    std::vector<std::vector<std::size_t>> cost(a.size() + 1, std::vector<std::size_t>(b.size() + 1));
    for (std::size_t i = 0; i <= a.size(); ++i) {
        for (std::size_t j = 0; j <= b.size(); ++j) {
            if (i == 0 || j == 0) {
                cost[i][j] = i + j;
                continue;
            }
            const std::size_t replaced = cost[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
            cost[i][j] = std::min({cost[i - 1][j] + 1, cost[i][j - 1] + 1, replaced});
            const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            if (swapped) cost[i][j] = std::min(cost[i][j], cost[i - 2][j - 2] + 1);
        }
    }
    return cost[a.size()][b.size()];
}

}  // namespace

std::string nearest_name(const std::string& name, const std::vector<std::string>& known) {
    std::size_t least = 1 + name.size() / 4;  // letters that may be wrong
    std::string found;
    for (const std::string& candidate : known) {
        const std::size_t wrong = distance(name, candidate);
        if (wrong > least || (wrong == least && !found.empty())) continue;
        least = wrong;
        found = candidate;
    }
    return found;
}

std::string did_you_mean(const std::string& name) {
    return name.empty() ? "" : "; did you mean " + name + "?";
}

}  // namespace espalier
