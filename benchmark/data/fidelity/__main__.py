"""See the package. Exit code 0 whatever the differences are; 2 with one sentence for bad input."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from benchmark.errors import InputError, nearest

if TYPE_CHECKING:
    from benchmark.data.fidelity.compare import Case, Difference
    from benchmark.data.fidelity.crops import Law

OK, BAD_INPUT, STOPPED = 0, 2, 130
_EXACT = "To float64: beside torchvision in double precision; in single precision it rounds the positions that it samples at."
_CROPS = (
    "Crops beside those of torchvision's sampler: Kolmogorov-Smirnov distance D, p, and percentiles, ours above. Among so "
    "many comparisons a few small p belong to equal laws."
)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmark.data.fidelity",
        description="Compare the views of every kernel with torchvision's transforms, and show them.",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", default=Path("build/fidelity"),
                        help="for fidelity.json, crops.png, samples.png and index.html; default: build/fidelity")  # fmt: skip
    parser.add_argument("--images", type=Path, metavar="PATH",
                        help="a folder of images, a converted data set or a .beton file; default: drawn images")  # fmt: skip
    parser.add_argument("--count", type=_at_least_one, default=24, metavar="N", help="images to compare on; default: 24")
    parser.add_argument("--kernels", default="numba,torch", metavar="NAMES",
                        help="which, separated by commas; torch runs on the CPU and, where there is one, on a GPU")  # fmt: skip
    parser.add_argument("--only", action="append", metavar="NAME",
                        help="only this operation or group of the table (may be repeated)")  # fmt: skip
    parser.add_argument("--draws", type=_at_least_one, default=10_000, metavar="N",
                        help="crops of each kind drawn on both sides; default: 10,000")  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write fidelity.json there instead")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments(argv)
    try:
        return _main(args)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        return STOPPED


def _main(args: argparse.Namespace) -> int:
    # torch and the kernels take a second to import: --help does not wait for them
    from benchmark.data.fidelity import compare, crops, page, photos, samples
    from benchmark.data.fidelity.kernels import available

    cases = _chosen(args.only, compare.cases())
    kernels, missing = available([name.strip() for name in args.kernels.split(",")])
    if not kernels:
        raise InputError(f"none of the kernels {args.kernels} can run here; {' '.join(missing)}")
    _make_folder(args.out)
    loaded = photos.load(args.images, args.count)
    console, progress = Console(highlight=False), Console(stderr=True)
    rows: list[Difference] = []
    shown = track(cases, "comparing", console=progress, transient=True, disable=not progress.is_terminal)
    for case in shown:
        rows += compare.compare(case, loaded.photos, kernels)
    peers, ffcv = compare.compare_ffcv(cases, loaded.photos)
    laws = crops.laws(args.draws)
    notes = [*([_EXACT] if any(case.exact for case in cases) else []), *_notes(rows), *missing]
    report = {
        "images": loaded.words,
        "versions": compare.versions(),
        "kernels": list(kernels),
        "ffcv": ffcv,
        "rows": [row._asdict() for row in rows + peers],
        "crops": [law.as_json() for law in laws],
    }
    console.print(f"Differences to torchvision on {escape(loaded.words)}, in grey levels of 255", style="bold")
    _differences(console, rows, list(kernels))
    for note in notes:
        console.print(escape(note), style="dim")
    if peers:
        console.print(f"\n{escape(ffcv)}: it averages areas, and where it enlarges it mostly repeats pixels", style="bold")
        _differences(console, peers, ["FFCV"])
    elif ffcv:
        console.print(escape(ffcv), style="dim")
    console.print(f"\n{_CROPS}", style="bold")
    _crops(console, laws)
    crops.draw(laws, args.out / "crops.png")
    words = samples.page(loaded.pictures or loaded.photos, next(iter(kernels.values())), args.out / "samples.png")
    page.write(report, notes, words, args.out)
    _write_json(report, args.json or args.out / "fidelity.json")
    console.print(f"\nPictures and tables: {args.out / 'index.html'}", soft_wrap=True, markup=False)
    return OK


def _chosen(names: Sequence[str] | None, cases: list[Case]) -> list[Case]:
    known = [name for case in cases for name in (case.name, case.group)]
    for name in names or ():
        if name not in known:
            raise InputError(f"--only names {name!r}, which is neither an operation nor a group{nearest(name, known)}")
    return [case for case in cases if names is None or case.name in names or case.group in names]


def _notes(rows: Sequence[Difference]) -> list[str]:
    """A sentence for each line with values that differ visibly: these lay on a threshold."""
    return [
        f"{row.operation}, {row.kernel}: {row.visible:.1g} of the values differ by more than half a level. A value that lies "
        f"on a threshold but for rounding (of solarize, equalize, posterize) is taken to either side of it."
        for row in rows
        if row.visible > 0
    ]


def _differences(console: Console, rows: Sequence[Difference], kernels: Sequence[str]) -> None:
    from benchmark.data.fidelity.page import number

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("operation")
    for kernel in kernels:
        table.add_column(f"{kernel}\nmean", justify="right")
        table.add_column("\nmax", justify="right")
    for group, lines in groupby(rows, key=lambda row: row.group):
        table.add_row(f"[dim]{escape(group)}[/dim]")
        for operation, found in groupby(lines, key=lambda row: row.operation):
            numbers = (number(value) for row in found for value in (row.mean, row.max))
            table.add_row(f"  {escape(operation.removeprefix(f'{group} '))}", *numbers)
    console.print(table)


def _crops(console: Console, laws: Sequence[Law]) -> None:
    from benchmark.data.fidelity.crops import QUANTILES, quantiles

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("image", "area from", "of"):
        table.add_column(name, no_wrap=True)
    for name in ("D", "p", *(f"{percent} %" for percent in QUANTILES)):
        table.add_column(name, justify="right", no_wrap=True)
    for law in laws:
        pairs = zip(quantiles(law.ours), quantiles(law.theirs), strict=True)
        values = (f"{ours:z.2f}\n{theirs:z.2f}" for ours, theirs in pairs)
        scale = f"{law.scale[0]:g}-{law.scale[1]:g}"
        table.add_row(law.image, scale, law.quantity, f"{law.statistic:.3f}", f"{law.pvalue:.2f}", *values)
    console.print(table)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {folder} cannot be made ({error.strerror}); name another folder") from None


def _write_json(report: dict[str, Any], path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=1) + "\n")
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}); name another file") from None


def _at_least_one(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
