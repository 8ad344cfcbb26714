"""What can stand in a column: the evaluation it comes from, its unit, and which direction is better.

The direction is written here once and nowhere else, so that no table can get it wrong. A metric's id is
`<evaluation protocol>.<entry of its metrics>`; `pretrain.*` is what a training itself cost.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from benchmark.errors import InputError, nearest
from benchmark.plan.protocols import PROTOCOLS

PRETRAIN = "pretrain"


@dataclass(frozen=True)
class Metric:
    """A number of an evaluation record: `stage` names the evaluation, `key` the entry of its `metrics`."""

    stage: str
    key: str
    label: str
    unit: str  # "%", "AP", "h", "GB" or "" for a pure number
    decimals: int
    higher_is_better: bool | None  # None: neither end is the good one

    @property
    def id(self) -> str:
        return f"{self.stage}.{self.key}"

    @property
    def is_accuracy(self) -> bool:
        """Whether an untrained network has this number too, which a trained one must beat before it says anything."""
        return self.unit in ("%", "AP")

    @property
    def arrow(self) -> str:
        return {True: "↑", False: "↓", None: ""}[self.higher_is_better]

    def shown(self, value: float) -> str:
        """The value at the metric's precision. A true 0 is printed like any other number, and nothing as -0."""
        return f"{round(value, self.decimals) + 0.0:.{self.decimals}f}"


_NAMES = {
    "linear": "linear",
    "knn": "kNN",
    "knn_dino": "kNN (k = 20)",
    "blog_logistic": "blog's probe",
    "finetune": "fine-tuned",
    "distill": "distilled",
    "detection": "detection",
}
_PAPERS = {
    "moco": "MoCo",
    "mocov3": "MoCo v3",
    "mocov3_vit": "MoCo v3, ViT",
    "simsiam": "SimSiam",
    "simclr": "SimCLR",
    "simclrv2": "SimCLR v2",
    "byol": "BYOL",
    "swav": "SwAV",
    "barlow": "Barlow Twins",
    "vicreg": "VICReg",
    "dino": "DINO",
    "dino_base": "DINO, ViT-B",
    "cmc": "CMC",
}
_DETECTED = {
    "voc07": "VOC07",
    "voc0712": "VOC07+12",
    "voc0712_swav": "VOC07+12, SwAV's schedule",
    "coco": "COCO 1x",
    "coco_2x": "COCO 2x",
    "coco_fpn": "COCO FPN 1x",
    "coco_fpn_2x": "COCO FPN 2x",
    "smoke": "smoke",
}


def _stage_name(stage: str) -> str:
    """An evaluation protocol in a column's header."""
    if stage in _NAMES:
        return _NAMES[stage]
    kind, _, rest = stage.partition("_")
    if kind == "linear":
        return f"linear ({_PAPERS[rest]})"
    if kind == "detection":
        return _DETECTED[rest]
    who, _, share = rest.rpartition("_")
    return f"{_NAMES[kind]} {share} % ({_PAPERS.get(who, who)})"


def _of(stage: str) -> Iterator[Metric]:
    """The numbers of one protocol that a table may show."""
    kind = stage.partition("_")[0]
    if kind in ("linear", "knn", "blog", "finetune", "distill"):
        name = _stage_name(stage)
        yield Metric(stage, "top1", name, "%", 1, True)
        if kind in ("linear", "finetune", "distill") and stage != "linear":
            yield Metric(stage, "top5", f"{name} top-5", "%", 1, True)
        if stage.startswith("linear_"):
            yield Metric(stage, "fast_top1", f"{name}, fast probe", "%", 1, True)
    elif kind == "detection":
        name = _stage_name(stage)
        for prefix, word in (("", ""), ("mask_", " mask"), ("voc07_", " 11-point")):
            for key in ("AP", "AP50", "AP75"):
                yield Metric(stage, prefix + key, f"{name}{word} {key}", "AP", 1, True)


_OTHERS = (
    Metric("collapse", "std", "std(z)·√d", "", 3, None),
    Metric("collapse", "effective_rank", "effective rank", "", 1, None),
    Metric("collapse", "pair_cosine", "pair cosine", "", 3, None),
    Metric("collapse", "alignment", "alignment", "", 3, False),
    Metric("collapse", "uniformity", "uniformity", "", 3, False),
    Metric("attention", "jaccard", "attention Jaccard", "", 3, True),
    Metric("embedding_map", "tsne_trust", "t-SNE trustworthiness", "", 3, True),
    Metric("embedding_map", "pca_trust", "PCA trustworthiness", "", 3, True),
    Metric(PRETRAIN, "hours", "training time", "h", 1, False),
    Metric(PRETRAIN, "memory", "memory", "GB", 1, False),
    Metric(PRETRAIN, "images_per_second", "images per second", "", 0, True),
)
COLLAPSE = _OTHERS[0]


def stand_in(own: Metric) -> Metric | None:
    """What a smaller scale measures in place of a paper's own protocol, if it has anything of the kind."""
    if own.key != "top1" or own.stage in ("linear", "knn"):
        return None
    kind = own.stage.partition("_")[0]
    return METRICS().get({"linear": "linear.top1", "blog": "linear.top1", "knn": "knn.top1"}.get(kind, ""))


@cache
def METRICS() -> dict[str, Metric]:
    """Every metric by its id."""
    found = [metric for stage in PROTOCOLS for metric in _of(stage)]
    return {metric.id: metric for metric in (*found, *_OTHERS)}


def metric(name: object, where: str) -> Metric:
    """The metric of this id. Raises InputError beginning with `where`."""
    known = METRICS()
    if name not in known:
        hint = nearest(name, known)
        raise InputError(f"{where}: unknown metric '{name}'; a metric is protocol.number, such as linear.top1{hint}")
    return known[str(name)]
