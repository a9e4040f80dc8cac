"""The frame and the style sheet of the pages, for light and dark settings, phones and paper."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1b1f24; --soft: #57606a; --rule: #d5dae0; --tint: #eef4fb;
  --k0: #1170c0; --k1: #cf5a10; --k2: #006b45; --k3: #cc4a96; --k4: #3b1f8f; --k5: #159cb0; --k6: #6b2f1f;
  --k7: #9a8a00; --rest: #8b949e; }
@media screen and (prefers-color-scheme: dark) { :root { --paper: #14181d; --ink: #e6eaef; --soft: #a0a9b4;
  --rule: #39414b; --tint: #1d2a3a; --k0: #58a6f5; --k1: #e87a35; --k2: #1f9e6a; --k3: #f59acb; --k4: #8a5cf0;
  --k5: #7fe0ee; --k6: #ecd957; --k7: #b57f64; --rest: #727c88; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 70rem; padding: 1rem 1.2rem 3rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .6rem 0 1rem; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; }
h3 { font-size: 1rem; margin: 0 0 .5rem; }
h4 { font-size: .9rem; margin: 1rem 0 .2rem; }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 15rem), 1fr)); gap: .5rem 1.5rem;
  margin: 0; padding: .8rem 0; border: solid var(--rule); border-width: 1px 0; }
dt { font-size: .78rem; color: var(--soft); }
dd { margin: 0; font-size: .92rem; overflow-wrap: anywhere; }
.verdict { font-size: 1.05rem; margin: 1.2rem 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .38rem .7rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--rule); }
thead th { font-size: .8rem; font-weight: 600; color: var(--soft); vertical-align: bottom; }
th:first-child { text-align: left; position: sticky; left: 0; background: var(--paper); }
tbody th { font-weight: 500; }
tr.dense > * { border-bottom: 2px solid var(--soft); }
tr.best > *, tr.best > th:first-child { background: var(--tint); font-weight: 700; }
.badge { font-size: .72rem; font-weight: 600; padding: .05rem .4rem; border-radius: .6rem; border: 1px solid var(--k0);
  color: var(--k0); }
.none, .note, figcaption, small { color: var(--soft); }
.plain { grid-column: 1 / -1; margin: 0; }
.note, figcaption { font-size: .82rem; margin: .5rem 0; overflow-wrap: anywhere; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)); gap: 2.2rem 2.5rem; }
figure { margin: 0; break-inside: avoid; min-width: 0; }
figure > svg { display: block; width: 100%; height: auto; }
svg text { font-size: 12px; fill: var(--soft); font-variant-numeric: tabular-nums; }
svg text.title, svg text.name, svg text.value { fill: var(--ink); }
.line { fill: none; stroke: currentColor; stroke-width: 1.7; stroke-linejoin: round; }
.dashed { stroke-dasharray: 5 3.5; stroke-width: 1.3; }
.dot, .area { fill: currentColor; }
.dot { stroke: var(--paper); stroke-width: .8; }
.heat { fill: var(--k0); }
.ring { fill: none; stroke: currentColor; stroke-width: 1.8; }
.grid { fill: none; stroke: var(--rule); stroke-width: .7; }
.axis { fill: none; stroke: var(--soft); stroke-width: 1; }
.reference { fill: none; stroke: var(--soft); stroke-width: 1.2; stroke-dasharray: 2 3; }
.hit { fill: transparent; }
.k0 { color: var(--k0); } .k1 { color: var(--k1); } .k2 { color: var(--k2); } .k3 { color: var(--k3); }
.k4 { color: var(--k4); } .k5 { color: var(--k5); } .k6 { color: var(--k6); } .k7 { color: var(--k7); }
.rest { color: var(--rest); }
.legend { display: flex; flex-wrap: wrap; gap: .15rem 1rem; list-style: none; margin: .4rem 0; padding: 0;
  font-size: .85rem; }
.legend li { display: flex; align-items: center; gap: .4rem; }
.key { width: 28px; height: 12px; flex: none; } .key.small { width: 12px; }
details { margin-top: 2.5rem; border-top: 1px solid var(--rule); padding-top: 1rem; }
summary { cursor: pointer; font-weight: 600; }
details h3 { margin-top: 1.4rem; }
.options td, .options th { text-align: left; vertical-align: top; }
.options small { display: block; }
pre { background: var(--tint); padding: .6rem .8rem; border-radius: .3rem; font-size: .82rem; white-space: pre-wrap;
  overflow-wrap: anywhere; margin: .3rem 0; }
@media (max-width: 30rem) { .facts { grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: .5rem 1rem; } }
@media print { body { max-width: none; padding: 0; font-size: 10pt; print-color-adjust: exact;
  -webkit-print-color-adjust: exact; }
  .plots { grid-template-columns: 1fr 1fr; gap: 1.2rem 1.5rem; } .scroll { overflow: visible; }
  th, td { padding: .25rem .4rem; }
  th:first-child { position: static; }
  h2, h3 { break-after: avoid; } tr { break-inside: avoid; } }
"""


def html_page(heading: str, sections: Iterable[str], more_style: str = "") -> str:
    """One file of the sections that are not empty."""
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    head += f"<title>{escape(heading)}</title><style>{STYLE}{more_style}</style>"
    body = "\n".join(section for section in sections if section)
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'
