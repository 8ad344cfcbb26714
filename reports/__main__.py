"""`python -m reports`: the papers' tables with our numbers beside theirs, from the records alone.

    python -m reports                          reports/build/index.html and all it links to; tables as .md, .tex, .csv, .json
    python -m reports --print                  the tables that have runs, in the terminal; nothing is written
    python -m reports --against OTHER          and a page that compares the store with another one
    python -m reports --publish                README's marked parts and reports/rendered/, from the committed records
    python -m reports --check                  nothing written; exit code 1 if one of those differs from the committed records
    python -m reports --compact reports/records   the store's records without checkpoints, to be committed

Exit code 0; 1 if --check found a difference; 2 for bad input: every file, selector or number that does not fit is named in one
sentence, and nothing is rendered, unless --keep-going asks for what can be.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmark.errors import InputError
from reports import bench, build
from reports.evidence import existing, export, read_evidence

_RECORDS = build.ROOT / "reports" / "records"
_OUT = build.ROOT / "reports" / "build"
OK, DIFFERS, BAD_INPUT = 0, 1, 2


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m reports", description="Render the papers' tables from the records.")
    parser.add_argument("--store", type=Path, help="where runs are; default: RETABLE_STORE or runs/")
    parser.add_argument("--records", type=Path, default=_RECORDS, help="committed records; default: reports/records/")
    parser.add_argument("--root", type=Path, default=build.ROOT, metavar="DIR",
                        help="where sweeps/, reports/tables/ and reports/reference/ lie; default: this project")  # fmt: skip
    parser.add_argument("--out", type=Path, default=_OUT, help="where to write; default: reports/build/")
    parser.add_argument("--table", action="append", default=[], metavar="ID", help="only this table (may be repeated)")
    parser.add_argument("--sweep", help="only the tables that this sweep fills")
    parser.add_argument("--profile", help="only this scale; default: every one at which something has run")
    parser.add_argument("--against", type=Path, metavar="STORE", help="compare with the runs of another store")
    parser.add_argument("--keep-going", action="store_true", help="name what does not fit and render the rest")
    parser.add_argument("--no-figures", action="store_true", help="leave the figures out")
    parser.add_argument("--pdf", action="store_true", help="draw all figures for print too, however many there are")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--print", action="store_true", help="print the tables in the terminal and write nothing")
    instead.add_argument("--publish", action="store_true", help="rewrite what is committed, from the committed records")
    instead.add_argument("--check", action="store_true", help="say whether what is committed fits the committed records")
    instead.add_argument("--readme", type=Path, metavar="FILE", help="rewrite the marked parts of this file")
    instead.add_argument("--compact", type=Path, metavar="DIR", help="export the store's records to DIR")
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
    committed = args.publish or args.check  # what is committed rests on committed records alone
    folders = [args.records] if committed else existing(store, args.records, explicit=args.store is not None)
    if args.compact is not None:
        return _compact(store, args.compact)
    there = [_there(args.against)] if args.against is not None else []
    named = str(args.store) if args.store is not None else ""
    sources = build.Sources.under(args.root, folders)
    report = build.load(sources, build.tables_of(sources, args.sweep, args.table), args.profile, named)
    measured, unread = bench.newest(args.records / "bench")
    problems = [*report.problems, *unread]
    if problems and not args.keep_going:
        for text in problems:
            print(f"error: {text}", file=sys.stderr)
        print("nothing was rendered; --keep-going renders what these do not touch", file=sys.stderr)
        return BAD_INPUT
    for text in () if args.print else (*problems, *report.remarks):
        print(f"warning: {text}", file=sys.stderr)
    code = BAD_INPUT if problems else OK
    if args.print:
        from rich.console import Console

        from reports.render_terminal import print_report

        print_report(report, Console(highlight=False))
    elif committed:
        from reports import publish

        return max(code, publish.check(report, measured) if args.check else publish.write(report, measured))
    elif args.readme is not None:
        from reports.readme import rewrite

        print(f"{args.readme}: {'rewritten' if rewrite(args.readme, report, measured) else 'already up to date'}")
    else:
        other = build.load(build.Sources.under(args.root, there)) if there else None
        page, told = build.write(
            report,
            args.out,
            not args.no_figures,
            measured,
            other,
            str(args.against or ""),
            unread,
            args.pdf,
            sources.references,
        )
        for text in told:
            print(f"note: {text}", file=sys.stderr)
        print(page)
    return code


def _there(store: Path) -> Path:
    if not store.is_dir():
        raise InputError(f"--against: {store}: no such store; name a folder with records of runs")
    return store


def _compact(store: Path, target: Path) -> int:
    evidence = read_evidence([store])
    count = export(evidence.all(), target)
    print(f"{count} records written to {target}")
    for text in (*evidence.problems, *evidence.remarks):
        print(f"warning: {text}", file=sys.stderr)
    return BAD_INPUT if evidence.problems else OK


if __name__ == "__main__":
    sys.exit(main())
