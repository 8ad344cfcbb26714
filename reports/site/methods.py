"""A page for each method, and their family tree with the list of them all."""

from __future__ import annotations

from reports import lineage
from reports.methods import gather
from reports.site import Site
from reports.table import Table


def write(site: Site) -> None:
    """methods/index.html and methods/<name>.html for every method."""
    methods = gather(site.report)
    names = {method.name: method.label for method in methods}
    shown = {table.slug for table in site.report.tables}
    for method in methods:
        site.page(
            f"methods/{method.name}.html",
            "method.html.j2",
            method.label,
            method=method,
            works=lineage.WORKS,
            names=names,
            link=lambda table: place(site, table, shown),
            style=lineage.STYLE,
            tree=lineage.drawn(lambda name: f"{name}.html", method.name) if method.works else "",
        )
    site.page(
        "methods/index.html",
        "methods.html.j2",
        "Methods and where they come from",
        methods=methods,
        tree=lineage.drawn(lambda name: f"{name}.html"),
        style=lineage.STYLE,
        works=lineage.WORKS,
        steps=lineage.STEPS,
    )


def place(site: Site, table: Table, shown: set[str]) -> str:
    """The page of a table, at this scale where the page shows it."""
    return site.table(table if table.slug in shown else table.id)
