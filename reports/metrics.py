"""What can stand in a measured column: the evaluation it comes from, its unit, and which direction is better.

The direction is written here once and nowhere else, so that no table can get it wrong.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmark.errors import InputError, nearest


@dataclass(frozen=True)
class Metric:
    """A number of an evaluation record: `stage` names the evaluation, `key` the entry of its `metrics`."""

    stage: str
    key: str
    label: str
    unit: str  # "%" or "" for a pure number
    decimals: int
    higher_is_better: bool | None  # None: neither end is the good one

    @property
    def id(self) -> str:
        return f"{self.stage}.{self.key}"

    def shown(self, value: float) -> str:
        """The value at the metric's precision. A true 0 is printed like any other number."""
        return f"{value:.{self.decimals}f}"


_ALL = (
    Metric("linear", "top1", "linear", "%", 1, True),
    Metric("knn", "top1", "kNN", "%", 1, True),
    Metric("blog_logistic", "top1", "blog's probe", "%", 1, True),
    Metric("collapse", "std", "std(z)·√d", "", 3, None),
    Metric("collapse", "effective_rank", "effective rank", "", 1, None),
    Metric("collapse", "pair_cosine", "pair cosine", "", 3, None),
)
METRICS: dict[str, Metric] = {metric.id: metric for metric in _ALL}
COLLAPSE = METRICS["collapse.std"]


def metric(name: object, where: str) -> Metric:
    """The metric of this id. Raises InputError beginning with `where`."""
    if name not in METRICS:
        raise InputError(f"{where}: unknown metric '{name}'; allowed: {', '.join(METRICS)}{nearest(name, METRICS)}")
    return METRICS[str(name)]
