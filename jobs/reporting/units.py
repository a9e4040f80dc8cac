"""Numbers as people read them: in tables, texts and at axes."""

from __future__ import annotations

import math

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def tick_text(value: float, smallest_plain: float = 0.001) -> str:
    """A number in few characters: plain decimals where they are short, else 3×10⁻⁷."""
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)) + 1e-9)
    if smallest_plain <= abs(value) * (1 + 1e-9) and exponent < 6:
        return f"{value:,.6g}"
    power = "10" + str(exponent).translate(SUPERSCRIPTS)
    mantissa = f"{value / 10.0**exponent:.3g}"
    return power if mantissa == "1" else f"{mantissa}×{power}"


def learning_rate_text(rate: float) -> str:
    """A learning rate, always as 3×10⁻⁷, so that neighbours on an axis look alike."""
    return tick_text(rate, smallest_plain=1)


def percent_text(share: float) -> str:
    """12.5 %, 0.03 %."""
    return f"{tick_text(float(f'{100 * share:.3g}'))} %"


def seconds_text(seconds: float) -> str:
    """0.8 s, 42 s, 3 min 05 s, 2 h 07 min."""
    whole = round(seconds)
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if whole < 60:
        return f"{whole} s"
    return (
        f"{whole // 60} min {whole % 60:02d} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    )


def perplexity_text(value: float) -> str:
    """12.346, 1,234.568, 1.23e+07."""
    return f"{value:,.3f}" if value < 1e6 else f"{value:.2e}"


def memory_text(value: float) -> str:
    """1.5 MiB, 12.0 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def flop_rate_text(value: float) -> str:
    """98.1 GFLOP/s."""
    for unit in ("", "k", "M", "G", "T"):
        if value < 1000:
            return f"{value:.1f} {unit}FLOP/s"
        value /= 1000
    return f"{value:.1f} PFLOP/s"


def three_digits(value: float) -> str:
    """0.262, 1.00, 15.0, 110."""
    return f"{value:#.3g}".rstrip(".")


def time_text(seconds: float) -> str:
    """42.8 ms, 8.58 s, 41.4 s, 15 min 42 s."""
    if 0 < seconds < 0.0995:
        return f"{three_digits(1000 * seconds)} ms"
    return f"{three_digits(seconds)} s" if 0 < seconds < 59.95 else seconds_text(seconds)


def bytes_text(count: float) -> str:
    """0 B, 1.71 GB, 17.5 TB: powers of ten, as networks and the planner count."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 999.5:
            return f"{count:.0f} B" if unit == "B" else f"{three_digits(count)} {unit}"
        count /= 1000
    return f"{count:,.4g} PB"


def share_text(share: float) -> str:
    """100.0 %, 9.3 %, 0.81 %."""
    return f"{100 * share:.1f} %" if share >= 0.02 or share == 0 else f"{100 * share:.2g} %"


def few_digits(value: float) -> str:
    """1,024, 110, 3.97, 0.262, 2×10⁻⁵."""
    if 0 < value < 0.000995:
        return tick_text(float(f"{value:.2g}"))
    return f"{value:,.0f}" if value >= 99.95 else three_digits(value)


def plural(unit: str) -> str:
    """Ranks, GPUs: above columns and below axes."""
    return f"{unit[0].upper()}{unit[1:]}s"


def count_text(count: float, unit: str) -> str:
    """1 GPU, 1,024 GPUs."""
    return f"{count:,.0f} {unit}{'' if count == 1 else 's'}"


def time_tick(seconds: float) -> str:
    """1 ms, 20 s, 5 min, 2 h: ticks of an axis of time."""
    for unit, name in ((3600.0, "h"), (60.0, "min"), (1.0, "s")):
        if seconds >= unit * (0.0999 if name == "s" else 0.9999):
            return f"{seconds / unit:,.6g} {name}"
    return f"{1000 * seconds:.3g} ms"


def percent_tick(share: float) -> str:
    """12.5 %: ticks of a share."""
    return f"{tick_text(round(100 * share, 6))} %"


def bandwidth_text(rate: float) -> str:
    """117 GB/s."""
    return f"{bytes_text(rate)}/s"


def bandwidth_tick(rate: float) -> str:
    """1 GB/s, where bandwidth_text has 1.00 GB/s."""
    digits, unit = bandwidth_text(rate).split()
    return f"{float(digits):g} {unit}"


def aligned(lines: list[list[str]]) -> str:
    """A table for a terminal: its heading, a rule, its rows; the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines)]
    printed = [
        "  ".join([first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:]))]).rstrip()
        for first, *others in lines
    ]
    return "\n".join([printed[0], "-" * (sum(widths) + 2 * len(widths) - 2), *printed[1:]])
