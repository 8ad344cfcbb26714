"""What is committed beside the records: README's marked parts and reports/rendered/, a Markdown file for each table with runs
and one on what is covered.

A change of the code that changes a published number is so seen in review, and `--check` keeps both in step with the records.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from benchmark.store.record import write_bytes
from reports import coverage, readme, render_markdown
from reports.assemble import Report
from reports.bench import Bench
from reports.build import ROOT

RENDERED = ROOT / "reports" / "rendered"
README = ROOT / "README.md"
OK, DIFFERS = 0, 1


def _rendered(report: Report) -> dict[Path, str]:
    """The files and what should be in them. Only tables with runs: the others say nothing that the registry does not."""
    found = {RENDERED / "coverage.md": f"# What of the published numbers is covered\n\n{coverage.markdown(report)}\n"}
    for name, tables in report.by_id.items():
        with_runs = [table for table in tables if table.trained]
        if with_runs:
            found[RENDERED / f"{name}.md"] = render_markdown.render(with_runs)
    return found


def check(report: Report, measured: Mapping[str, Bench]) -> int:
    """Name what differs from the records on standard error; 0 if nothing does."""
    wanted = _rendered(report)
    differing = [path for path, text in wanted.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    differing += [path for path in sorted(RENDERED.glob("*.md")) if path not in wanted]
    if readme.renewed(README, report, measured) != README.read_text(encoding="utf-8"):
        differing.append(README)
    for path in differing:
        print(
            f"{path.relative_to(ROOT)}: differs from the committed records; python -m reports --publish renews it",
            file=sys.stderr,
        )
    if not differing:
        print(f"README.md and {len(wanted)} files of reports/rendered fit the committed records")
    return DIFFERS if differing else OK


def write(report: Report, measured: Mapping[str, Bench]) -> int:
    """Renew them, and take away tables that no longer have runs."""
    wanted = _rendered(report)
    RENDERED.mkdir(exist_ok=True)
    for path, text in wanted.items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_bytes(path, text.encode())
    for path in sorted(RENDERED.glob("*.md")):
        if path not in wanted:
            path.unlink()
    readme.rewrite(README, report, measured)
    print(f"README.md and {len(wanted)} files of {RENDERED.relative_to(ROOT)} are those of the committed records")
    return OK
