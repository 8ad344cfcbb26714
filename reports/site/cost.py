"""The page of what it costs to find out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from benchmark.plan.cost import words
from reports.cost import Costs
from reports.site import Site
from reports.site.methods import place

if TYPE_CHECKING:
    from reports.figures import Drawing


def write(site: Site, costs: Costs, drawings: Mapping[str, Drawing]) -> None:
    """cost.html. drawings: by the name of the sketch (`costs.sketches`), as far as they were drawn."""
    shown = {table.slug for table in site.report.tables}
    site.page(
        "cost.html",
        "cost.html.j2",
        "What it costs to find out",
        costs=costs,
        drawings=[drawings[sketch.name] for sketch in costs.sketches if sketch.name in drawings],
        link=lambda table: place(site, table, shown),
        words=words,
    )
