"""All pages of the site but those on methods, cost and the comparison of two stores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from reports.bench import TITLES, Bench
from reports.departures import ABOUT, Source
from reports.site import Site, evidence, front, tables

if TYPE_CHECKING:
    from reports.audit import Finding
    from reports.figures import Drawing

Drawings = Mapping[str, Sequence["Drawing"]]
# how far a document and the paper agree, the worst first, with what the word means
AGREEMENT = {
    "no": "the document and the paper disagree",
    "partly": "the document is right in part",
    "unresolved": "the paper's own value is not established",
    "yes": "the document says what the paper says",
}


def write(
    site: Site,
    drawings: Drawings | Callable[[], Drawings],
    benches: Mapping[str, Bench],
    departures: Sequence[Source],
    findings: Sequence[Finding],
    problems: Sequence[str] = (),
    registry: Mapping[str, int] | None = None,
) -> None:
    """Front page, tables, evidence, and those of departures.html, audit.html and speed.html that the site's bar names.

    drawings: figures by the slug of their table, or what waits for them, which is called when all else is written.
    problems: what is wrong with the input beyond what the report itself says.
    registry: how many cells each table of the registry has.
    """
    front.write(site, problems, registry)
    evidence.write(site)
    named = dict(site.navigation)
    if "departures.html" in named:
        site.page(
            "departures.html", "departures.html.j2", "Departures from papers and released code", about=ABOUT, sources=departures
        )
    if "audit.html" in named:
        _audit(site, findings)
    if "speed.html" in named:
        site.page("speed.html", "speed.html.j2", "Speed", benches=benches, titles=TITLES)
    tables.write(site, drawings() if callable(drawings) else drawings)


def _audit(site: Site, findings: Sequence[Finding]) -> None:
    groups = {word: [each for each in findings if each.agrees == word] for word in AGREEMENT}
    title, on_page = "What the documents say, and what the papers say", set(site.report.by_id)
    site.page("audit.html", "audit.html.j2", title, groups=groups, meaning=AGREEMENT, on_page=on_page)
