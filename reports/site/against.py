"""The page that compares two stores."""

from __future__ import annotations

from reports.against import MEANING, Comparison, markdown
from reports.site import Site
from reports.site.methods import place


def write(site: Site, comparison: Comparison) -> None:
    """against.html and against.md."""
    shown = {table.slug for table in site.report.tables}
    own = {table.slug for table in site.report.every}
    site.page(
        "against.html",
        "against.html.j2",
        "Two stores compared",
        comparison=comparison,
        meaning=MEANING,
        link=lambda table: place(site, table, shown) if table.slug in own else site.table(table.id),
        keys=lambda entry: [site.report.runs[run].key for run in entry.runs if run in site.report.runs],
    )
    site.write("against.md", markdown(comparison))
