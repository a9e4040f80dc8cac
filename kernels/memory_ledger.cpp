#include "kernels/memory_ledger.h"

#include "src/base/units.h"

#include <algorithm>
#include <cstring>
#include <numeric>

namespace espalier {

std::vector<MemoryItem> largest_first(std::vector<MemoryItem> items) {
    std::stable_sort(items.begin(), items.end(),
                     [](const MemoryItem& a, const MemoryItem& b) { return a.bytes > b.bytes; });
    return items;
}

std::size_t total_bytes(const std::vector<MemoryItem>& items) {
    return std::accumulate(items.begin(), items.end(), std::size_t{0},
                           [](std::size_t sum, const MemoryItem& item) { return sum + item.bytes; });
}

std::string describe(std::vector<MemoryItem> items) {
    std::string text;
    for (const MemoryItem& item : largest_first(std::move(items))) {
        text += (text.empty() ? "" : ", ") + item.name + " " + format_bytes(static_cast<double>(item.bytes));
    }
    return text;
}

// A few dozen names, all but always at the same addresses: a search is quicker than a map.
std::size_t MemoryLedger::index_of(const char* name) {
    auto known = std::find(names_.begin(), names_.end(), name);
    if (known == names_.end()) {
        known = std::find_if(names_.begin(), names_.end(),
                             [name](const char* other) { return std::strcmp(other, name) == 0; });
    }
    if (known != names_.end()) return static_cast<std::size_t>(known - names_.begin());
    names_.push_back(name);
    now_.push_back(0);
    return names_.size() - 1;
}

void MemoryLedger::add(const char* name, std::size_t bytes) {
    now_[index_of(name)] += bytes;
    allocated_ += bytes;
    if (allocated_ <= peak_) return;
    peak_ = allocated_;
    at_peak_ = now_;
}

void MemoryLedger::remove(const char* name, std::size_t bytes) noexcept {
    now_[index_of(name)] -= bytes;
    allocated_ -= bytes;
}

void MemoryLedger::reset_peak() {
    peak_ = allocated_;
    at_peak_ = now_;
}

std::vector<MemoryItem> MemoryLedger::items_of(const std::vector<std::size_t>& bytes) const {
    std::vector<MemoryItem> items;
    for (std::size_t i = 0; i < bytes.size(); ++i) {
        if (bytes[i] > 0) items.push_back({names_[i], bytes[i]});
    }
    return items;
}

}  // namespace espalier
