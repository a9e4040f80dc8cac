// Bytes by name, now and at the peak.
#include "kernels/memory_ledger.h"

#include <gtest/gtest.h>

#include <string>

namespace espalier {
namespace {

TEST(MemoryLedger, KeepsThePeakAndWhatItConsistedOf) {
    MemoryLedger ledger(100);
    const std::string same = "weights";  // one text at two addresses is one name
    ledger.add("weights", 30);
    ledger.add(same.c_str(), 10);
    ledger.add("mask", 20);
    ledger.remove("weights", 30);
    ledger.add("hidden states", 5);
    EXPECT_EQ(ledger.allocated(), 35U);
    EXPECT_EQ(ledger.peak(), 60U);
    EXPECT_EQ(describe(ledger.items_at_peak()), "weights 40 B, mask 20 B");
    EXPECT_EQ(total_bytes(ledger.items_at_peak()), ledger.peak());
    EXPECT_EQ(describe(ledger.items()), "mask 20 B, weights 10 B, hidden states 5 B");
    ledger.reset_peak();
    EXPECT_EQ(ledger.peak(), 35U);
    EXPECT_EQ(describe(ledger.items_at_peak()), describe(ledger.items()));
}

TEST(MemoryLedger, KnowsWhatStillFits) {
    MemoryLedger ledger(100);
    ledger.add("weights", 60);
    EXPECT_TRUE(ledger.has_room_for(40));
    EXPECT_FALSE(ledger.has_room_for(41));
    EXPECT_FALSE(ledger.has_room_for(static_cast<std::size_t>(-1)));
    ledger.remove("weights", 60);
    EXPECT_TRUE(ledger.has_room_for(100));
}

TEST(MemoryLedger, MayCountWhatABudgetRefuses) {
    MemoryLedger ledger(100, OverBudget::counted);
    EXPECT_TRUE(ledger.has_room_for(1000));
    ledger.add("weights", 1000);
    EXPECT_EQ(ledger.left(), 0U);
    EXPECT_EQ(ledger.peak(), 1000U);
}

}  // namespace
}  // namespace espalier
