"""Scaling studies: what was measured, dry-run or planned on how many ranks, read into one form, and what follows.

A study holds one or two series (strong: the same work on more ranks; weak: the same work for each rank), a series one
case for every number of ranks.
"""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Optional

from formats.json_file import InputRefused, read_json
from reporting.metrics import Run, load_run, mapping, number, read_format
from reporting.units import bytes_text, count_text, share_text

STUDY_FORMAT = "espalier-scaling"
DRY_RUN_FORMAT = "espalier-dry-run"
PLAN_FORMAT = "espalier-plan-table"
KINDS = ("strong", "weak")
LIMITS = {"products": "products", "memory": "device memory", "host_link": "host link", "network": "network"}

# ----------------------------------------------------------------------------------------------------------------------
# One form for all
# ----------------------------------------------------------------------------------------------------------------------


class Traffic(NamedTuple):
    """What one rank put through a collective in a phase of a block."""

    sent: float
    received: float

    @property
    def busier(self) -> float:
        """Bytes of the busier direction: both go at once on links of today."""
        return max(self.sent, self.received)


@dataclass(frozen=True)
class Case:
    """A run on a number of ranks: measured some times, dry-run or planned. None is unknown."""

    ranks: int
    times: tuple[float, ...]
    block_seconds: Optional[float] = None
    phases: Counter[str] = field(default_factory=Counter)  # seconds of a block
    limits: Counter[str] = field(default_factory=Counter)  # the same seconds by what bounds them
    traffic: dict[tuple[str, str], Traffic] = field(default_factory=dict)  # of a block, by phase and collective
    parts: Counter[str] = field(default_factory=Counter)  # seconds of the run: of a plan or dry run
    memory: Optional[float] = None
    sent: Optional[float] = None
    choice: tuple[Optional[float], ...] = (None, None, None)  # block groups, shards, samples of a step
    plan: Optional[Case] = None
    run: Optional[Run] = None

    @property
    def seconds(self) -> float:
        """The median of the repeats."""
        return statistics.median(self.times)

    @property
    def device_seconds(self) -> float:
        """Time by ranks: what the run is charged for."""
        return self.seconds * self.ranks

    def bandwidth(self, key: tuple[str, str]) -> Optional[float]:
        """Bytes by the seconds of the phase: less than the links gave, since phases also compute."""
        seconds, traffic = self.phases[key[0]], self.traffic.get(key)
        return traffic.busier / seconds if traffic and traffic.busier and seconds > 0 else None


@dataclass(frozen=True)
class Series:
    """Cases by rising ranks; the first is what the others are compared with."""

    kind: str
    cases: list[Case]

    @property
    def base(self) -> Case:
        """The smallest case."""
        return self.cases[0]

    def ideal(self, ranks: float) -> float:
        """Ideal seconds: of the same work they fall with the ranks, of work that grows with them they stay."""
        return self.base.seconds * (self.base.ranks / ranks if self.kind == "strong" else 1)

    def efficiency(self, case: Case) -> float:
        """Share of the ideal."""
        return self.ideal(case.ranks) / case.seconds

    def speed_up(self, case: Case) -> float:
        """Work by time, the base case's being its ranks: as if it were ideal up to there."""
        return self.efficiency(case) * case.ranks

    def serial_share(self) -> Optional[float]:
        """Amdahl's s in t(n) = t(base) (s + (1 − s) base / n): least squares of the relative error of the times."""
        pairs = [(1 - self.base.ranks / case.ranks, self.base.seconds / case.seconds) for case in self.cases]
        weights = math.fsum((x * weight) ** 2 for x, weight in pairs)
        if self.kind != "strong" or not weights or len({case.choice for case in self.cases}) > 1:
            return None  # cases of other groups or mini-batches do other work
        # (s x + 1 - x) weight = 1, with x = 1 - base / n and weight = t(base) / t(n)
        share = math.fsum(x * weight * (1 - (1 - x) * weight) for x, weight in pairs) / weights
        return min(1.0, max(0.0, share))

    def amdahl(self, share: float, ranks: float) -> float:
        """Seconds that the fitted law says."""
        return self.base.seconds * (share + (1 - share) * self.base.ranks / ranks)


@dataclass(frozen=True)
class Study:
    """All that a report shows; `origin` is measured, dry run or plan."""

    source: Path
    origin: str
    unit: str
    series: list[Series]
    notes: list[str] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)  # the study.json

    @property
    def first(self) -> Series:
        """The series of the headline."""
        return self.series[0]


# ----------------------------------------------------------------------------------------------------------------------
# Plans and dry runs
# ----------------------------------------------------------------------------------------------------------------------


def traffic_of(communication: Any) -> dict[str, Traffic]:
    """Bytes by collective from `communication` of a phase."""
    return {
        verb: Traffic(
            number(mapping(counts).get("bytes_sent")) or 0, number(mapping(counts).get("bytes_received")) or 0
        )
        for verb, counts in mapping(communication).items()
    }


def planned_case(row: Any, plan: Optional[Case], where: str) -> Optional[Case]:
    """A case from a row of a plan or dry run; None when it does not fit into memory."""
    row = mapping(row)
    ranks, seconds = number(row.get("ranks")), number(row.get("run_seconds"))
    if ranks is None or ranks < 1 or ranks != int(ranks):
        raise InputRefused(f"{where} has a row without a number of ranks")
    if row.get("fits") is False:
        return None
    if seconds is None or seconds <= 0:
        raise InputRefused(f"{where} has no run_seconds for {count_text(ranks, 'rank')}")
    phases, limits = Counter(), Counter()
    traffic = {}
    for phase, cost in mapping(row.get("phases")).items():
        phases[phase] = max(0.0, number(mapping(cost).get("seconds")) or 0.0)
        for limit in LIMITS:
            limits[limit] += max(0.0, number(mapping(cost).get(limit)) or 0.0)
        for verb, bytes_ in traffic_of(mapping(cost).get("communication")).items():
            traffic[phase, verb] = bytes_
    blocks, block_seconds = number(row.get("blocks_in_a_row")), number(row.get("block_seconds"))
    parts = Counter({"dense pass": number(row.get("dense_seconds")) or 0, "files alone": number(row.get("file_seconds")) or 0})
    parts["blocks"] = (blocks or 0) * (block_seconds or 0)
    return Case(
        ranks=int(ranks),
        times=(seconds,),
        block_seconds=block_seconds,
        phases=phases,
        limits=limits if limits["products"] > 0 else Counter(),
        traffic=traffic,
        memory=number(row.get("memory_bytes")),
        parts=parts if parts["blocks"] > 0 else Counter(),
        sent=math.fsum(bytes_.sent for bytes_ in traffic.values()) * blocks if blocks else None,
        choice=tuple(number(row.get(key)) for key in ("block_groups", "shards", "ro_batch")),
        plan=plan,
    )


def sorted_series(kind: str, cases: list[Case], where: str) -> Series:
    """Cases by ranks, each number once."""
    cases = sorted(cases, key=lambda case: case.ranks)
    twice = [ranks for ranks, often in Counter(case.ranks for case in cases).items() if often > 1]
    if twice:
        raise InputRefused(f"{where} has {count_text(twice[0], 'rank')} twice")
    return Series(kind, cases)


def read_plan(path: Path, rows: list[Any], unit: str) -> Study:
    """The table of `espalier plan --table --json`."""
    cases, small = [], []
    for row in rows:
        case = planned_case(row, None, str(path))
        if case is None:
            small.append(count_text(row["ranks"], unit))
        else:
            cases.append(case)
    if not cases:
        raise InputRefused(f"{path} has no row that fits into memory")
    notes = [f"Does not fit into memory on {', '.join(small)}."] if small else []
    return Study(path, "plan", unit, [sorted_series("strong", cases, str(path))], notes)


def about_of(content: dict[str, Any]) -> dict[str, Any]:
    """What a plan or dry run says about itself: command, model, rates and network."""
    rates = mapping(content.get("rates"))
    network = mapping(rates.get("network"))
    links = []
    for name, words in (("inside", "inside of a machine"), ("between", "between machines")):
        link = mapping(network.get(name))
        bandwidth, latency = number(link.get("bandwidth")), number(link.get("latency"))
        if bandwidth and latency is not None:
            links.append(f"{bytes_text(bandwidth)}/s and {1e6 * latency:.3g} µs {words}")
    per_machine = number(network.get("ranks_per_machine"))
    if links and per_machine:
        links.append(f"{per_machine:.0f} ranks a machine")
    files = number(rates.get("file_bandwidth"))
    return {
        "command": content.get("command_line"),
        "model": str(content.get("model") or ""),
        "device": str(content.get("device") or rates.get("name") or ""),
        "rates": str(rates.get("origin") or ""),
        "network": "; ".join(links),
        "files": f"{bytes_text(files)}/s of a rank" if files else "",
    }


def read_dry_run(path: Path, unit: str) -> Study:
    """The report of `espalier prune --dry-run-ranks`, with the plan of every case."""
    content = read_format(path, DRY_RUN_FORMAT)
    series, notes = [], []
    for kind in KINDS:
        rows = content.get(kind)
        if not isinstance(rows, list):
            continue
        cases = []
        for row in map(mapping, rows):
            plan = planned_case(row["plan"], None, str(path)) if mapping(row.get("plan")) else None
            case = planned_case(row.get("dry_run") or {"ranks": row.get("ranks"), "fits": False}, plan, str(path))
            if case:
                cases.append(case)
            else:
                notes.append(f"No dry run of {kind} scaling on {count_text(row['ranks'], unit)}: it does not fit.")
        if cases:
            series.append(sorted_series(kind, cases, str(path)))
    if not series:
        raise InputRefused(f"{path} has no dry runs")
    return Study(path, "dry run", unit, series, notes, about_of(content))


# ----------------------------------------------------------------------------------------------------------------------
# Measured runs
# ----------------------------------------------------------------------------------------------------------------------


def load_repeat(folder: Path, ranks: int) -> Run:
    """A finished run; InputRefused says in a few words what is missing."""
    if not (folder / "metrics.json").is_file():
        raise InputRefused("has no metrics.json: it has not run, or was ended before its end")
    try:
        run = load_run(folder)
    except InputRefused as error:
        raise InputRefused(str(error).replace(f"{folder / 'metrics.json'} ", "metrics.json ")) from error
    seconds, blocks = number(run.metrics.get("total_seconds")), number(mapping(run.metrics.get("model")).get("blocks"))
    if seconds is None or seconds <= 0:
        raise InputRefused("has no total_seconds")
    if blocks and "only-blocks" not in mapping(run.metrics.get("options")) and len(run.blocks) < blocks:
        raise InputRefused(f"has {len(run.blocks)} of {blocks:.0f} blocks")
    if number(run.metrics.get("ranks")) != ranks:
        raise InputRefused(f"ran on {run.metrics.get('ranks')} ranks")
    return run


def measured_case(ranks: int, runs: list[Run]) -> Case:
    """Median and range of the repeats; a block is the mean over blocks and repeats."""
    blocks = [block for run in runs for block in run.pruned_blocks] or [block for run in runs for block in run.blocks]
    phases: Counter[str] = Counter()
    sums: dict[tuple[str, str], list[float]] = {}
    for block in blocks:
        for phase, seconds in mapping(block.get("seconds")).items():
            phases[phase] += (number(seconds) or 0.0) / len(blocks)
        for phase, communication in mapping(block.get("communication")).items():
            for verb, traffic in traffic_of(communication).items():
                total = sums.setdefault((phase, verb), [0.0, 0.0])
                total[0] += traffic.sent / len(blocks)
                total[1] += traffic.received / len(blocks)
    options = mapping(runs[0].metrics.get("options"))
    choice = tuple(option_number(options, name) for name in ("block-groups", "shards", "ro-batch"))
    peaks = [peak for run in runs for peak in run.known("peak_bytes")]
    sent = math.fsum(total[0] for total in sums.values()) * len(runs[0].blocks) / (choice[0] or 1)
    return Case(
        ranks=ranks,
        times=tuple(number(run.metrics["total_seconds"]) for run in runs),
        block_seconds=math.fsum(phases.values()) or None,
        phases=phases,
        traffic={key: Traffic(*total) for key, total in sums.items()},
        memory=max(peaks) if peaks else None,
        sent=sent if sums else None,
        choice=choice,
        run=runs[0],
    )


def option_number(options: dict[str, Any], name: str) -> Optional[float]:
    """An option's value as a number."""
    try:
        return number(float(mapping(options.get(name)).get("value")))
    except (TypeError, ValueError):
        return None


def ranks_of(folder: Path) -> Optional[int]:
    """4 from ranks-0004."""
    digits = folder.name[len("ranks-") :]
    return int(digits) if folder.is_dir() and digits.isascii() and digits.isdigit() and int(digits) else None


def read_folder(folder: Path, unit: Optional[str]) -> Study:
    """What slurm/scaling made; runs that are missing or not whole are named and left out."""
    about = read_format(folder / "study.json", STUDY_FORMAT)
    kind, repeats = about.get("kind"), number(about.get("repeats"))
    if kind not in KINDS:
        raise InputRefused(f"{folder / 'study.json'} has the kind {json.dumps(kind)}, not strong or weak")
    if repeats is None or repeats < 1:
        raise InputRefused(f"{folder / 'study.json'} has no number of repeats")
    sizes = about.get("sizes") if isinstance(about.get("sizes"), list) else []
    folders = {ranks: path for path in sorted(folder.glob("ranks-*")) if (ranks := ranks_of(path))}
    cases, notes = [], []
    for ranks, path in sorted(folders.items()):
        runs = []
        for repeat in range(1, int(repeats) + 1):
            try:
                runs.append(load_repeat(path / f"repeat-{repeat}", ranks))
            except InputRefused as refusal:
                notes.append(f"Left out: {path.name}/repeat-{repeat} {refusal}.")
        if runs:
            cases.append(measured_case(ranks, runs))
    if len(folders) < len(sizes):
        notes.append(f"{len(sizes) - len(folders)} of the {len(sizes)} sizes of study.json have no folder.")
    if not cases:
        raise InputRefused(f"{folder} has no finished run")
    return Study(folder, "measured", unit or str(about.get("unit") or "rank"), [Series(kind, cases)], notes, about)


def doubts(study: Study) -> list[str]:
    """Efficiencies that are too good: caches give some per cent, not these."""
    return [
        f"{series.kind.capitalize()} scaling to {count_text(case.ranks, study.unit)} has {share_text(efficiency)} "
        "efficiency: see whether this case has all the work, or whether something slowed the smallest one down."
        for series in study.series
        for case in series.cases
        if (efficiency := series.efficiency(case)) > 1.2
    ]


def read_study(path: Path, unit: Optional[str]) -> Study:
    """A folder of measured runs, a dry run's report or a plan table, told apart by what they hold."""
    if path.is_dir():
        return read_folder(path, unit)
    content = read_json(path)
    if content.get("format") == PLAN_FORMAT and isinstance(content.get("rows"), list):
        study = read_plan(path, content["rows"], unit or "rank")
        study.about.update(about_of(content))
        return study
    if content.get("format") == DRY_RUN_FORMAT:
        return read_dry_run(path, unit or "rank")
    raise InputRefused(f"{path} is neither a folder of a scaling study nor a plan table nor a dry run's report")
