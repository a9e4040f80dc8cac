"""What follows from the times of a scaling study: speed-up, Amdahl's law, axes."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Optional

import pytest
from made_up_runs import SERIAL, amdahl

JOBS = Path(__file__).resolve().parents[2] / "jobs"
sys.path.insert(0, str(JOBS))
units = importlib.import_module("reporting.units")
study = importlib.import_module("reporting.scaling_study")
figures = importlib.import_module("reporting.scaling_figures")


def test_amdahl_is_found_again_on_exact_data():
    for base in (1, 8):
        cases = [study.Case(ranks, (amdahl(ranks),)) for ranks in (base, 2 * base, 16 * base, 1024 * base)]
        series = study.Series("strong", cases)
        share = series.serial_share()
        # From more than one rank on, the serial share is that of the base case's time.
        assert share == pytest.approx(SERIAL * 800 / amdahl(base))
        assert [series.amdahl(share, case.ranks) for case in cases] == pytest.approx([case.seconds for case in cases])


def test_amdahl_stays_between_all_and_nothing():
    def share(*times: float) -> Optional[float]:
        return study.Series("strong", [study.Case(1 << at, (time,)) for at, time in enumerate(times)]).serial_share()

    assert share(8.0, 4.0, 2.0) == pytest.approx(0.0)
    assert share(8.0, 3.9, 1.8) == 0.0 and share(8.0, 9.0, 10.0) == 1.0 and share(8.0) is None
    assert study.Series("weak", [study.Case(1, (8.0,)), study.Case(2, (9.0,))]).serial_share() is None


def test_speed_up_and_efficiency_of_a_base_of_several_ranks():
    series = study.Series("strong", [study.Case(8, (100.0,)), study.Case(32, (40.0, 50.0, 90.0))])
    assert series.speed_up(series.base) == 8 and series.efficiency(series.base) == 1
    assert series.cases[1].seconds == 50 and series.efficiency(series.cases[1]) == pytest.approx(0.5)
    assert series.speed_up(series.cases[1]) == pytest.approx(16) and series.cases[1].device_seconds == 1600
    weak = study.Series("weak", series.cases)
    assert weak.efficiency(weak.cases[1]) == pytest.approx(2) and weak.ideal(32) == 100


@pytest.mark.parametrize(
    ("low", "high"), [(8.6, 942.0), (0.1, 0.2), (3.0, 3.0), (1e-4, 5.0), (0.2, 200_000.0), (1, 1e9)]
)
def test_time_axes_cover_their_values_with_few_ticks(low: float, high: float):
    scale = figures.time_scale([low, high])
    assert scale.low <= low and high <= scale.high and 2 <= len(scale.ticks) <= 14
    texts = [units.time_tick(tick) for tick in scale.ticks]
    assert len(set(texts)) == len(texts) and all(re.fullmatch(r"[\d.,]+ (ms|s|min|h)", text) for text in texts)


@pytest.mark.parametrize("largest", [2, 64, 1024, 65536])
def test_numbers_of_ranks_do_not_run_into_each_other(largest: int):
    ranks = [1 << power for power in range(largest.bit_length())]
    x, text = figures.ranks_axis([study.Case(count, (1.0,)) for count in ranks], 50)
    shown = [(x(tick), text(tick)) for tick in x.ticks if text(tick)]
    assert len(x.ticks) == len(ranks) and shown[-1][1] == f"{largest:,}" and len(shown) >= min(len(ranks), 4)
    for (left, first), (right, second) in zip(shown, shown[1:]):
        assert right - left >= (figures.text_width(first) + figures.text_width(second)) / 2
