"""A scaling study as one HTML page, as a table in Markdown and as comma-separated values."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from datetime import datetime
from html import escape
from pathlib import Path
from typing import NamedTuple, Optional

from reporting.metrics import mapping
from reporting.scaling_figures import (
    bandwidth_figure,
    bytes_figure,
    collective_name,
    collectives,
    efficiency_figure,
    limits_figure,
    phase_figures,
    run_figure,
    time_figure,
)
from reporting.scaling_study import Case, Series, Study, doubts
from reporting.style import html_page
from reporting.texts import calibration_text, distinct, model_text, pattern_text
from reporting.units import bandwidth_text, bytes_text, count_text, few_digits, plural, share_text, time_text

OWN_STYLE = """
h1 b { display: block; font-size: 2.3rem; line-height: 1.2; color: var(--k0); font-variant-numeric: tabular-nums; }
h1 small { font-size: 1rem; font-weight: 400; }
td small { display: block; font-size: .78rem; }
.bytes small { display: inline-block; margin-left: .5rem; min-width: 5.6rem; }
.bytes thead th { white-space: normal; }
.plots { margin-top: 1.8rem; } .plots + h3 { margin-top: 2.2rem; }
.missing { margin: .3rem 0; padding-left: 1.2rem; }
"""

# ----------------------------------------------------------------------------------------------------------------------
# Tables
# ----------------------------------------------------------------------------------------------------------------------


class Cell(NamedTuple):
    """A printed value and what stands small below it."""

    text: str
    below: str = ""


class Column(NamedTuple):
    """A column of the table: heading, how to print it for a case (None: unknown), what it means."""

    heading: str
    cell: Callable[[Case], Optional[Cell]]
    meaning: str


def given(value: Optional[float], text: Callable[[float], str]) -> Optional[Cell]:
    """A cell unless the value is unknown."""
    return None if value is None else Cell(text(value))


def time_cell(case: Case) -> Cell:
    """The median; below it the range of the repeats."""
    if len(case.times) < 2:
        return Cell(time_text(case.seconds))
    return Cell(time_text(case.seconds), f"{time_text(min(case.times))} – {time_text(max(case.times))}")


def plan_cell(case: Case) -> Optional[Cell]:
    """What the plan says, below it the plan by the dry run."""
    return Cell(time_text(case.plan.seconds), f"× {case.plan.seconds / case.seconds:.2f}") if case.plan else None


def columns_of(study: Study, series: Series) -> list[Column]:
    """The columns that say something about a series."""
    unit, cases = study.unit, series.cases
    small = max(case.device_seconds for case in cases) < 360
    cost, by = ("seconds", 1) if small else ("hours", 3600)
    base = count_text(series.base.ranks, unit)
    repeated = any(len(case.times) > 1 for case in cases)
    work = "the same for each" if series.kind == "weak" else "the same on all"
    columns = [
        Column("Time", time_cell, "median of the whole run, its range below" if repeated else "of the whole run"),
        Column(
            "Speed-up",
            lambda case: Cell(few_digits(series.speed_up(case))),
            f"over one {unit}, as if {base} were ideal" if series.base.ranks > 1 else f"work by time, over {base}",
        ),
        Column(
            "Efficiency",
            lambda case: Cell(share_text(series.efficiency(case))),
            f"share of the ideal; the work is {work}",
        ),
        Column(
            f"{plural(unit)[:-1]}-{cost}",
            lambda case: Cell(few_digits(case.device_seconds / by)),
            "time by their number",
        ),
        Column("Block", lambda case: given(case.block_seconds, time_text), "time of a decoder block in its group"),
        Column("Device memory", lambda case: given(case.memory, bytes_text), "most in use on one device"),
        Column("Sent by a rank", lambda case: given(case.sent, bytes_text), "in all its blocks, to other ranks"),
        Column("Plan", plan_cell, "what `plan` says; below it, as a multiple of the dry run's"),
    ]
    chosen = (("Groups", "block-groups"), ("Shards", "shards"), ("RO batch", "ro-batch"))
    for place, (heading, option) in enumerate(chosen):
        choices = {case.choice[place] for case in cases}
        if study.origin == "plan" or len(choices) > 1:
            columns.append(
                Column(
                    heading, lambda case, place=place: given(case.choice[place], "{:,.0f}".format), f"option {option}"
                )
            )
    return [column for column in columns if any(column.cell(case) is not None for case in cases)]


def html_table(study: Study, series: Series) -> str:
    """The table of a series for the page."""
    columns = columns_of(study, series)
    head = "".join(f'<th scope="col" title="{escape(column.meaning)}">{column.heading}</th>' for column in columns)
    rows = ""
    for case in series.cases:
        cells = "".join(html_cell(column.cell(case)) for column in columns)
        rows += f'<tr><th scope="row">{case.ranks:,}</th>{cells}</tr>'
    meanings = "; ".join(f"{column.heading}: {column.meaning}" for column in columns)
    table = (
        f'<table><thead><tr><th scope="col">{plural(study.unit)}</th>{head}</tr></thead><tbody>{rows}</tbody></table>'
    )
    return f'<div class="scroll">{table}</div><p class="note">{escape(meanings)}.</p>'


def html_cell(cell: Optional[Cell]) -> str:
    """A cell of the page."""
    if cell is None:
        return '<td><span class="none">–</span></td>'
    return f"<td>{escape(cell.text)}{f'<small>{escape(cell.below)}</small>' if cell.below else ''}</td>"


def markdown_table(study: Study, series: Series) -> str:
    """The same table for a README."""
    columns = columns_of(study, series)
    lines = [f"| {plural(study.unit)} | " + " | ".join(column.heading for column in columns) + " |"]
    lines.append("| ---: |" + " ---: |" * len(columns))
    for case in series.cases:
        cells = (column.cell(case) or Cell("") for column in columns)
        printed = (f"{cell.text} ({cell.below})" if cell.below else cell.text for cell in cells)
        lines.append(f"| {case.ranks:,} | " + " | ".join(printed) + " |")
    return "\n".join(lines) + "\n"


def markdown(study: Study, title: Optional[str]) -> str:
    """Tables of all series, with what was left out."""
    parts = [f"{heading_of(study, title)}\n"]
    for series in study.series:
        parts += [f"{series_title(study, series)}: {verdict(study, series)}\n", markdown_table(study, series)]
    parts += [f"- {note}\n" for note in [*study.notes, *doubts(study)]]
    return "\n".join(parts)


def csv_text(study: Study) -> str:
    """Plain numbers of all cases; unknown ones are empty."""
    phases = sorted({phase for series in study.series for case in series.cases for phase in case.phases})
    names = ["origin", "kind", "unit", "ranks", "runs", "median_seconds", "least_seconds", "most_seconds", "speed_up"]
    names += ["efficiency", "device_hours", "block_seconds", "memory_bytes", "bytes_sent_by_rank", "plan_seconds"]
    names += ["block_groups", "shards", "ro_batch", *(f"{phase}_seconds_of_block" for phase in phases)]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    for series in study.series:
        for case in series.cases:
            row = [study.origin, series.kind, study.unit, case.ranks, len(case.times), case.seconds]
            row += [min(case.times), max(case.times), series.speed_up(case), series.efficiency(case)]
            row += [case.device_seconds / 3600, case.block_seconds, case.memory, case.sent]
            row += [case.plan.seconds if case.plan else None, *case.choice, *(case.phases[phase] for phase in phases)]
            writer.writerow(row)
    return out.getvalue()


def collectives_table(study: Study, series: Series) -> str:
    """Bytes of a block and the bandwidth they prove, by collective and size."""
    keys = collectives(series)
    cases = [case for case in series.cases if any(traffic.busier for traffic in case.traffic.values())]
    if not keys or not cases:
        return ""
    head = "".join(f'<th scope="col">{escape(collective_name(key))}</th>' for key in keys)
    rows = ""
    for case in cases:
        cells = ""
        for key in keys:
            traffic, rate = case.traffic.get(key), case.bandwidth(key)
            cells += html_cell(Cell(bytes_text(traffic.busier), f"≥ {bandwidth_text(rate)}") if traffic and rate else None)
        rows += f'<tr><th scope="row">{case.ranks:,}</th>{cells}</tr>'
    note = (
        "Bytes through one rank in one block, of the busier direction; behind them, divided by all seconds of the "
        "phase. The rank also computes in these seconds, so the links were at least that fast, as far as a transfer "
        "ends in the phase in which it began."
    )
    first = f'<th scope="col">{plural(study.unit)}</th>'
    table = f'<table class="bytes"><thead><tr>{first}{head}</tr></thead><tbody>{rows}</tbody></table>'
    return f'<h3>Bytes and bandwidth by collective</h3><div class="scroll">{table}</div><p class="note">{note}</p>'


# ----------------------------------------------------------------------------------------------------------------------
# Words
# ----------------------------------------------------------------------------------------------------------------------


def series_title(study: Study, series: Series) -> str:
    """Strong scaling, measured."""
    return f"{series.kind.capitalize()} scaling, {study.origin}"


def heading_of(study: Study, title: Optional[str]) -> str:
    """The given title, or what was scaled."""
    runs = [case.run for series in study.series for case in series.cases if case.run]
    model = distinct(Path(str(mapping(run.metrics.get("model")).get("path") or "")).name for run in runs)
    model = model or Path(str(study.about.get("model") or "")).name
    kinds = " and ".join(series.kind for series in study.series)
    what = {"measured": "scaling", "dry run": "scaling in a dry run", "plan": "scaling as planned"}[study.origin]
    return title or f"Espalier: {kinds} {what}" + (f" of {model}" if model else "")


def verdict(study: Study, series: Series) -> str:
    """The first and the last case in a sentence."""
    base, last = series.base, series.cases[-1]
    start = f"{count_text(base.ranks, study.unit)} {'takes' if base.ranks == 1 else 'take'} {time_text(base.seconds)}"
    if base is last:
        return f"{start}."
    end, share = f"{count_text(last.ranks, study.unit)} take {time_text(last.seconds)}", series.efficiency(last)
    if series.kind == "weak":
        return f"{start}; {end} for {last.ranks / base.ranks:,.4g} times the work, {share_text(share)} efficiency."
    return f"{start}; {end}, {few_digits(base.seconds / last.seconds)} times as fast, {share_text(share)} efficiency."


def facts(study: Study, written: datetime) -> str:
    """What holds for the whole study, as a list of terms."""
    cases = [case for series in study.series for case in series.cases]
    runs = [case.run for case in cases if case.run]
    versions = (run.metrics.get("program_version") for run in runs)
    threads = (run.metrics.get("threads_per_rank") for run in runs)
    repeats = sorted({len(case.times) for case in cases})
    shares = ((series, series.serial_share()) for series in study.series)
    entries = {
        "Work": "; ".join(
            {"strong": "the same on all sizes", "weak": "grows with the size"}[series.kind] for series in study.series
        ),
        "Serial share, fitted": "; ".join(share_text(share) for _, share in shares if share is not None),
        "Model": distinct(map(model_text, runs)) or study.about.get("model"),
        "Pattern": distinct(map(pattern_text, runs)),
        "Calibration": distinct(map(calibration_text, runs)),
        "Device": distinct(str(run.metrics.get("device") or "") for run in runs) or study.about.get("device"),
        "Rates": study.about.get("rates"),
        "Network": study.about.get("network"),
        "Files": study.about.get("files"),
        "Threads of a rank": distinct(str(count) if count else None for count in threads),
        "Runs of a size": " to ".join(map(str, repeats[:1] + repeats[1:][-1:])) if runs else None,
        "Version": distinct(f"Espalier {version}" if version else None for version in versions),
        "Submitted": " from ".join(str(study.about[key]) for key in ("submitted", "host") if study.about.get(key)),
        "Source": study.source.name,
        "Report of": written.strftime("%Y-%m-%d %H:%M"),
    }
    items = "".join(f"<div><dt>{term}</dt><dd>{escape(value)}</dd></div>" for term, value in entries.items() if value)
    return f'<dl class="facts">{items}</dl>'


ORIGIN_NOTES = {
    "measured": "",
    "dry run": "One real rank computed its share of a block on this device; what other ranks send was counted, and "
    "timed by the model of the network. The time of a run is that of its block times the blocks, and its files.",
    "plan": "Nothing was run: a rehearsal of one block counted products, bytes and calls, and a model of the device "
    "and the network timed them. Groups, shards and RO batch are the fastest choice that fits into memory.",
}


def options_table(study: Study) -> str:
    """Effective options; where sizes differ, the value of each."""
    cases = [case for case in study.first.cases if case.run]
    options = [mapping(case.run.metrics.get("options")) for case in cases]
    rows = ""
    for name in dict.fromkeys(name for of_case in options for name in of_case if name != "output"):
        values: dict[str, list[str]] = {}
        for case, of_case in zip(cases, options):
            text = str(mapping(of_case.get(name)).get("value", "not given"))
            values.setdefault(text, []).append(count_text(case.ranks, study.unit))
        origins = distinct(str(mapping(of_case.get(name)).get("origin") or "") for of_case in options) or ""
        whole = len(values) == 1
        printed = "; ".join(value if whole else f"{value} ({', '.join(sizes)})" for value, sizes in values.items())
        bold = f"<b>{escape(printed)}</b>" if origins != "default" else escape(printed)
        rows += f'<tr><th scope="row">{escape(name)}</th><td>{bold}</td><td>{escape(origins)}</td></tr>'
    head = '<thead><tr><th scope="col">Option</th><th scope="col">Value</th><th scope="col">From</th></tr></thead>'
    table = f'<div class="scroll"><table class="options">{head}<tbody>{rows}</tbody></table></div>'
    return f"<h3>Effective options</h3>{table}" if rows else ""


def reproduce(study: Study) -> str:
    """Options and commands."""
    runs = [case.run for case in study.first.cases if case.run]
    lines = [study.about.get("command"), *(run.metrics.get("command_line") for run in runs)]
    printed = "\n".join(str(given_line) for given_line in lines if given_line)
    commands = f"<h3>How to reproduce</h3><pre>{escape(printed)}</pre>" if printed else ""
    digests = distinct(mapping(run.metrics.get("calibration")).get("sha256") for run in runs)
    commands += f'<p class="note">SHA-256 of the calibration tokens: {escape(digests)}</p>' if digests else ""
    return options_table(study) + commands


# ----------------------------------------------------------------------------------------------------------------------
# Page
# ----------------------------------------------------------------------------------------------------------------------


def series_section(study: Study, series: Series) -> str:
    """Table and plots of a series."""
    unit = study.unit
    plots = [time_figure(series, unit, study.origin), efficiency_figure(series, unit, study.origin)]
    plots.append(run_figure(series, unit))
    plots += phase_figures(series, unit, study.origin)
    plots += [limits_figure(series, unit) or bytes_figure(series, unit), bandwidth_figure(series, unit)]
    title = f"<h2>{series_title(study, series)}</h2>"
    sentence = f'<p class="verdict">{escape(verdict(study, series))}</p>'
    drawn = f'<div class="plots">{"".join(plots)}</div>' if any(plots) else ""
    return f"{title}{sentence}{html_table(study, series)}{drawn}{collectives_table(study, series)}"


def page(study: Study, title: Optional[str], written: datetime) -> str:
    """The whole page; the headline has the time of the base case, without which a speed-up says little."""
    heading, base = heading_of(study, title), study.first.base
    absolute = f"<b>{time_text(base.seconds)} <small>on {count_text(base.ranks, study.unit)}</small></b>"
    missing = "".join(f"<li>{escape(note)}</li>" for note in [*study.notes, *doubts(study)])
    origin, folded = ORIGIN_NOTES[study.origin], reproduce(study)
    sections = [
        f"<header><h1>{escape(heading)} {absolute}</h1>{facts(study, written)}</header>",
        f'<p class="note">{escape(origin)}</p>' if origin else "",
        f'<ul class="missing">{missing}</ul>' if missing else "",
        *(series_section(study, series) for series in study.series),
        f"<details><summary>Effective options and how to reproduce</summary>{folded}</details>" if folded else "",
    ]
    return html_page(heading, sections, OWN_STYLE)
