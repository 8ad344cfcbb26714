"""`python -m reports`: the papers' tables with our numbers beside theirs, from the records alone.

    python -m reports                          reports/build/: index.html, departures.md, figures/, tables as .md, .tex, .csv
    python -m reports --print                  the tables in the terminal, nothing written
    python -m reports --readme README.md       the text between <!-- report:begin NAME --> markers written anew
    python -m reports --compact reports/records   the store's records without checkpoints and logs, to be committed

Exit code 0, or 2 with one sentence for bad input. A record that cannot be read is named, the rest is rendered all the same,
and the exit code is 2.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmark.errors import InputError
from reports import bench, build
from reports.evidence import Evidence, existing, export, read_evidence

_RECORDS = build.ROOT / "reports" / "records"
_OUT = build.ROOT / "reports" / "build"
OK, BAD_INPUT = 0, 2


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m reports", description="Render the papers' tables from the records.")
    parser.add_argument("--store", type=Path, help="where runs are; default: RETABLE_STORE or runs/")
    parser.add_argument("--records", type=Path, default=_RECORDS, help="committed records; default: reports/records/")
    parser.add_argument("--out", type=Path, default=_OUT, help="where to write; default: reports/build/")
    parser.add_argument("--table", action="append", default=[], metavar="ID", help="only this table (may be repeated)")
    parser.add_argument("--profile", help="only this scale; default: every one at which something has run")
    parser.add_argument("--print", action="store_true", help="print the tables in the terminal and write nothing")
    parser.add_argument("--readme", type=Path, metavar="FILE", help="rewrite the marked parts of this file instead")
    parser.add_argument("--compact", type=Path, metavar="DIR", help="export the store's records to DIR instead")
    parser.add_argument("--no-figures", action="store_true", help="leave the figures out")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments(argv)
    try:
        return _main(args)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT


def _main(args: argparse.Namespace) -> int:
    store = args.store or Path(os.environ.get("RETABLE_STORE") or "runs")
    folders = existing(store, args.records, explicit=args.store is not None)
    if args.compact is not None:
        return _compact(store, args.compact)
    named = str(args.store) if args.store is not None else ""
    report, evidence = build.load(build.Sources(folders), args.table, args.profile, named)
    measured, unread = bench.newest(args.records / "bench")
    if args.print:
        from rich.console import Console

        from reports.render_terminal import print_report

        print_report(report, Console(highlight=False))
    if args.readme is not None:
        from reports.readme import rewrite

        print(f"{args.readme}: {'rewritten' if rewrite(args.readme, report, measured) else 'already up to date'}")
    if not args.print and args.readme is None:
        print(build.write(report, args.out, figures=not args.no_figures, measured=measured))
    for text in unread:
        print(f"warning: {text}", file=sys.stderr)
    return max(_warn(evidence, printed=args.print), BAD_INPUT if unread else OK)


def _warn(evidence: Evidence, printed: bool = False) -> int:
    """Name what could not be read (unless the tables' print-out did) and give the exit code that goes with it."""
    for text in () if printed else (*evidence.problems, *evidence.remarks):
        print(f"warning: {text}", file=sys.stderr)
    return BAD_INPUT if evidence.problems else OK


def _compact(store: Path, target: Path) -> int:
    evidence = read_evidence([store])
    count = export(evidence.all(), target)
    print(f"{count} records written to {target}")
    return _warn(evidence)


if __name__ == "__main__":
    sys.exit(main())
