#pragma once
/// What the tensors of one device take, by what they are for: the one count of memory, of runs, plans and errors.

#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

namespace espalier {

/// Memory of all tensors of one name.
struct MemoryItem {
    std::string name;
    std::size_t bytes = 0;
};

/// "hidden states 4.0 GiB, weights 386 MiB": the largest first.
std::string describe(std::vector<MemoryItem> items);
std::vector<MemoryItem> largest_first(std::vector<MemoryItem> items);
/// Of all items together.
std::size_t total_bytes(const std::vector<MemoryItem>& items);

/// What happens to a tensor that the budget has no room for.
enum class OverBudget { refused, counted };

/// Not thread-safe, as tensors are not.
class MemoryLedger {
  public:
    /// Tensors may take `budget` bytes together.
    explicit MemoryLedger(std::size_t budget, OverBudget excess = OverBudget::refused)
        : budget_(budget), excess_(excess) {}

    /// Names live as long as the ledger; equal texts are one name.
    void add(const char* name, std::size_t bytes);
    /// What was added before.
    void remove(const char* name, std::size_t bytes) noexcept;
    bool has_room_for(std::size_t bytes) const { return excess_ == OverBudget::counted || bytes <= left(); }

    std::size_t budget() const { return budget_; }
    std::size_t left() const { return budget_ - std::min(allocated_, budget_); }
    /// Bytes allocated now, and the most so far since construction or reset_peak().
    std::size_t allocated() const { return allocated_; }
    std::size_t peak() const { return peak_; }
    void reset_peak();
    /// What they consist of, without what takes none, in the order in which the names were first used.
    std::vector<MemoryItem> items() const { return items_of(now_); }
    std::vector<MemoryItem> items_at_peak() const { return items_of(at_peak_); }

  private:
    std::vector<MemoryItem> items_of(const std::vector<std::size_t>& bytes) const;
    std::size_t index_of(const char* name);

    std::size_t budget_;
    OverBudget excess_;
    std::size_t allocated_ = 0, peak_ = 0;
    std::vector<const char*> names_;
    std::vector<std::size_t> now_, at_peak_;  ///< bytes by name
};

}  // namespace espalier
