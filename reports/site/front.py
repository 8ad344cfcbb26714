"""The front page: which claims hold at which scale, what covers the published tables, and what is wrong with the input."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reports import captions
from reports.assemble import Report
from reports.coverage import Coverage, coverage, shown
from reports.overview import Line, Scope, overview
from reports.site import Site

_DECIDED = ("supported", "contradicted")
# every outcome, and as a heading that a phone may break
OUTCOMES = {
    "supported": "sup\u00adported",
    "contradicted": "contra\u00addicted",
    "undecided": "un\u00addecided",
    "not run": "not run",
}


@dataclass(frozen=True)
class Paper:
    """The claims of one paper: tested, those that something decides first, and the rest, of which nothing has run."""

    name: str
    year: str
    arxiv: str
    url: str
    tested: tuple[Line, ...]
    rest: tuple[Line, ...]
    decided: int

    @property
    def summary(self) -> str:
        """How far its claims are tested, in a few words."""
        words = f"{self.decided} of {_counted(len(self.tested) + len(self.rest), 'claim')} decided"
        undecided = len(self.tested) - self.decided
        return words + (f", {undecided} undecided" if undecided else "")


def write(site: Site, problems: Sequence[str] = (), registry: Mapping[str, int] | None = None) -> None:
    """index.html. problems: what is wrong with the input beyond what the report says itself."""
    report = site.report
    scopes, lines = overview(report)
    scopes = [scope for scope in scopes if scope.profile]  # not that of the tables that nothing here can fill
    covered = coverage(report, registry)
    others = [tables[0] for tables in report.by_id.values() if not tables[0].published]
    site.page(
        "index.html",
        "front.html.j2",
        "Which published claims hold, at which scale",
        papers=_papers(lines),
        scopes=scopes,
        counts=_counts(scopes, lines),
        outcomes=OUTCOMES,
        facts=_facts(report, covered, lines),
        covered=covered,
        shown=shown,
        others=others,
        on_page={table.slug for table in report.tables},
        problems=[*report.problems, *problems],
        remarks=report.remarks,
        leftovers=captions.leftovers(report.unused),
    )


def _papers(lines: Sequence[Line]) -> list[Paper]:
    """Claims by paper in the order of the report, which is the order in which the papers appeared."""
    groups: dict[str, list[Line]] = {}
    for line in lines:
        groups.setdefault(line.table.paper, []).append(line)
    papers = []
    for name, found in groups.items():
        by_rank: tuple[list[Line], ...] = ([], [], [])
        for line in found:
            by_rank[_rank(line)].append(line)
        decided, undecided, rest = by_rank
        table = found[0].table
        papers.append(Paper(name, table.year, table.arxiv, table.url, (*decided, *undecided), tuple(rest), len(decided)))
    return papers


def outcome(words: str) -> str:
    """`supported` of `supported (direction)`."""
    return words.split(" (")[0]


def _rank(line: Line) -> int:
    """0: decided at some scale, 1: tried, 2: not run anywhere."""
    found = {outcome(words) for words in line.words.values() if words}
    return 0 if found & set(_DECIDED) else 1 if "undecided" in found else 2


def _counts(scopes: Sequence[Scope], lines: Sequence[Line]) -> dict[Scope, Counter[str]]:
    """How many claims have which outcome at each scale."""
    return {scope: Counter(outcome(line.words[scope]) for line in lines if line.words[scope]) for scope in scopes}


def _facts(report: Report, covered: Coverage, lines: Sequence[Line]) -> list[tuple[str, str]]:
    """(number, what it counts) for the top of the page."""
    total = covered.total
    ranks = [_rank(line) for line in lines]
    measured = total.cells - (total.verdicts or {}).get("not run", 0)
    ran = sum(line.any_run for line in covered.lines)
    keys = len({run.key for run in report.runs.values()})
    return [
        (f"{ranks.count(0)} of {len(ranks)}", "claims decided at some scale"),
        (f"{measured} of {total.cells}", "published numbers measured at some scale"),
        (f"{ran} of {len(covered.lines)}", "published tables with runs"),
        (str(keys), f"training{'' if keys == 1 else 's'}, {_counted(len(report.runs), 'run')} with their seeds"),
    ]


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
