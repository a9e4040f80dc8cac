"""Numbers as people read them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

JOBS = Path(__file__).resolve().parents[2] / "jobs"
sys.path.insert(0, str(JOBS))
units = importlib.import_module("reporting.units")


def test_times_bytes_shares_and_counts():
    times = [units.time_text(seconds) for seconds in (0.0428, 0.862, 8.584, 41.42, 59.97, 941.96, 7620)]
    assert times == ["42.8 ms", "0.862 s", "8.58 s", "41.4 s", "1 min 00 s", "15 min 42 s", "2 h 07 min"]
    counts = [units.bytes_text(count) for count in (0, 999, 1711276032, 15e9, 999.7e9, 17.46e12, 3e18)]
    assert counts == ["0 B", "999 B", "1.71 GB", "15.0 GB", "1.00 TB", "17.5 TB", "3,000 PB"]
    assert [units.few_digits(value) for value in (0.262, 1, 12.84, 99.97, 1024)] == [
        "0.262",
        "1.00",
        "12.8",
        "100",
        "1,024",
    ]
    assert [units.share_text(share) for share in (0, 0.0097, 0.107, 1.028)] == ["0.0 %", "0.97 %", "10.7 %", "102.8 %"]
    assert units.count_text(1, "GPU") == "1 GPU" and units.count_text(1024, "rank") == "1,024 ranks"


def test_tick_texts():
    texts = [units.tick_text(value) for value in (0, 0.002, 0.5, 30, 1200, 3e-7, 1e-4, 2e9)]
    assert texts == ["0", "0.002", "0.5", "30", "1,200", "3×10⁻⁷", "10⁻⁴", "2×10⁹"]
