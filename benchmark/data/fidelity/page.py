"""The report as one web page that needs nothing beside it: the pictures are embedded."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

_STYLE = """
:root { --page: #fff; --ink: #1c2127; --quiet: #59636e; --line: #d5dae0; }
@media (prefers-color-scheme: dark) { :root { --page: #14181d; --ink: #dfe4ea; --quiet: #97a1ad; --line: #333b45; } }
body { margin: 0 auto; padding: 1rem clamp(0.9rem, 3vw, 2.5rem) 4rem; max-width: 102rem; background: var(--page);
  color: var(--ink); font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
h1 { font-size: 1.7rem; } h2 { font-size: 1.35rem; margin: 2.5rem 0 0.5rem; } p { max-width: 50rem; }
.quiet { color: var(--quiet); font-size: 0.9rem; } .scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.92rem; }
th, td { padding: 0.25rem 0.7rem; text-align: left; border-bottom: 1px solid var(--line); }
thead th { vertical-align: bottom; border-bottom-width: 2px; } tbody th { font-weight: 400; }
.group th { font-weight: 600; padding-top: 1rem; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
img { max-width: 100%; height: auto; background: #fff; } .samples img { max-width: none; }
@media (max-width: 42rem) { th, td { padding: 0.2rem 0.3rem; } }
@media (min-width: 104rem) { .samples img { max-width: 100%; } }
"""


def write(report: Mapping[str, Any], notes: Sequence[str], shows: str, folder: Path) -> None:
    """index.html in `folder`, of the report as it is in fidelity.json and of crops.png and samples.png there.

    notes: sentences for below the table. shows: what samples.png shows, in words.
    """
    kernels, peers = report["kernels"], [row["kernel"] for row in report["rows"] if row["kernel"] not in report["kernels"]]
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>Fidelity of the views</title>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<style>{_STYLE}</style></head><body>",
        "<h1>Fidelity of the views</h1>",
        f"<p>What the augmentation kernels make of {escape(report['images'])}, beside torchvision's functional transforms on "
        f"the same parameters. {escape(report['versions'])}.</p>",
        "<h2>Differences</h2>",
        "<p>Absolute differences in grey levels of 255, before normalization: the mean over all values of all views, and the "
        "largest.</p>",
        _differences(report["rows"], kernels),
        *(f"<p class='quiet'>{escape(note)}</p>" for note in notes),
    ]
    if peers:
        parts += [
            "<h2>What FFCV's own crop does</h2>",
            f"<p>{escape(report['ffcv'])}: it averages areas, and where it enlarges it mostly repeats pixels.</p>",
            _differences(report["rows"], sorted(set(peers))),
        ]
    parts += [
        "<h2>Crops</h2>",
        f"<p>{report['crops'][0]['draws']:,} crops of ours and of torchvision's RandomResizedCrop for each kind of image: the "
        "distance of their distributions (two-sample Kolmogorov-Smirnov), how likely one at least as large is between equal "
        "laws (p), and where both have their percentiles. Among so many comparisons a few small p belong to equal laws.</p>",
        _picture(
            folder / "crops.png", "Cumulative distributions of area and aspect ratio of the crops; ours lie on torchvision's"
        ),
        _crops(report["crops"]),
        "<h2>Samples</h2>",
        f"<p>Made by the kernel “{escape(kernels[0])}”. Views of 224 pixels are shown at 144, all others in proportion.</p>",
        "<div class='scroll samples'>",
        _picture(folder / "samples.png", f"Augmented samples: {shows}"),
        "</div></body></html>",
    ]
    (folder / "index.html").write_text("\n".join(parts))


def number(value: float) -> str:
    """0, 0.032, 98.9, 1.2e-5: two digits that matter, in as little room as possible."""
    if value == 0:
        return "0"
    if value >= 0.01:
        return f"{value:.1f}" if value >= 1 else f"{value:.2g}"
    return re.sub(r"e-0*", "e-", f"{value:.1e}")


def _differences(rows: Iterable[Mapping[str, Any]], kernels: Sequence[str]) -> str:
    found = {(row["group"], row["operation"], row["kernel"]): row for row in rows}
    lines = [
        "<thead><tr><th rowspan=2>operation</th>",
        *(f"<th colspan=2>{escape(kernel)}</th>" for kernel in kernels),
        "</tr><tr>",
        *["<th class='number'>mean</th><th class='number'>max</th>"] * len(kernels),
        "</tr></thead><tbody>",
    ]
    group = None
    for at in dict.fromkeys(key[:2] for key in found if key[2] in kernels):
        if at[0] != group:
            group = at[0]
            lines.append(f"<tr class='group'><th colspan={1 + 2 * len(kernels)}>{escape(group)}</th></tr>")
        pairs = (found[*at, kernel] for kernel in kernels)
        cells = (f"<td class='number'>{number(row[key])}</td>" for row in pairs for key in ("mean", "max"))
        lines.append(f"<tr><th>{escape(at[1].removeprefix(f'{group} '))}</th>{''.join(cells)}</tr>")
    return f"<div class='scroll'><table>{''.join(lines)}</tbody></table></div>"


def _crops(crops: Sequence[Mapping[str, Any]]) -> str:
    percents = "".join(f"<th class='number'>{percent} %</th>" for percent in crops[0]["percents"])
    head = "<th>image</th><th>area from</th><th>of</th><th class='number'>distance</th><th class='number'>p</th><th></th>"
    lines = [f"<thead><tr>{head}{percents}</tr></thead><tbody>"]
    for crop in crops:
        low, high = crop["scale"]
        for who in ("ours", "torchvision"):
            values = "".join(f"<td class='number'>{value:z.3f}</td>" for value in crop[who])
            first = [""] * 5
            if who == "ours":
                size = f"{crop['width']} × {crop['height']}"
                first = [size, f"{low:g} to {high:g}", crop["quantity"], f"{crop['statistic']:.4f}", f"{crop['pvalue']:.2f}"]
            cells = "".join(f"<td{' class=number' if at > 2 else ''}>{text}</td>" for at, text in enumerate(first))
            lines.append(f"<tr>{cells}<td>{who}</td>{values}</tr>")
    return f"<div class='scroll'><table>{''.join(lines)}</tbody></table></div>"


def _picture(path: Path, says: str) -> str:
    return f"<img src='data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}' alt='{escape(says, quote=True)}'>"
