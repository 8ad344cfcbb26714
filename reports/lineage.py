"""The family tree of the methods: which work took over what from which, with a picture and the same in words.

The works and the edges not marked `ours` are those of the documents' last diagram. Ours add the methods here that the diagram
lacks, and what a paper itself says that it rests on where the diagram leaves it out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import escape

_BLOG = "https://imbue.com/research/2020-08-24-understanding-self-supervised-contrastive-learning/"


@dataclass(frozen=True)
class Work:
    """A paper (or blog). method: its name here. lane: its line in the picture, from the top. ours: not in the diagram."""

    id: str
    name: str
    year: int
    arxiv: str
    method: str
    lane: int
    what: str
    ours: bool = False

    @property
    def url(self) -> str:
        return f"https://arxiv.org/abs/{self.arxiv}" if self.arxiv else _BLOG


@dataclass(frozen=True)
class Step:
    """What a newer work took over from an older one, in a sentence. ours: not in the documents' diagram."""

    older: str
    newer: str
    says: str
    ours: bool = False


WORKS = {
    work.id: work
    for work in (
        Work("cpcv1", "CPC", 2018, "1807.03748", "cpc", 0, "predicts the features of patches further down; InfoNCE"),
        Work("instdisc", "InstDisc", 2018, "1805.01978", "instdisc", 2, "every image is a class of its own; a memory bank"),
        Work("deepcluster", "DeepCluster", 2018, "1807.05520", "deepcluster", 7, "learns to classify its own clusters"),
        Work("cpcv2", "CPC v2", 2019, "1905.09272", "cpcv2", 0, "a larger CPC, patches in four directions"),
        Work("cmc", "CMC", 2019, "1906.05849", "cmc", 1, "several modalities of one image are its views"),
        Work("mocov1", "MoCo", 2019, "1911.05722", "mocov1", 2, "a queue of keys from a slowly moving encoder"),
        Work(
            "invaspread", "InvaSpread", 2019, "1904.03436", "invaspread", 3, "the other images of the batch are the negatives"
        ),
        Work("simclr", "SimCLR", 2020, "2002.05709", "simclr", 3, "strong augmentations, a projection head, large batches"),
        Work("swav", "SwAV", 2020, "2006.09882", "swav", 7, "predicts the other view's code; multi-crop"),
        Work("mocov2", "MoCo v2", 2020, "2003.04297", "mocov2", 2, "MoCo with SimCLR's head and augmentations"),
        Work("simclrv2", "SimCLR v2", 2020, "2006.10029", "simclrv2", 3, "larger networks, few labels, distillation"),
        Work("byol", "BYOL", 2020, "2006.07733", "byol", 4, "predicts a moving target, without negatives"),
        Work("deepclusterv2", "DeepCluster v2", 2020, "2006.09882", "deepclusterv2", 8, "DeepCluster with SwAV's parts", True),
        Work("infomin", "InfoMin", 2020, "2005.10243", "infomin", 1, "views that share what the task needs and no more"),
        Work("simsiam", "SimSiam", 2020, "2011.10566", "simsiam", 3, "predictor and stop-gradient, no negatives, no momentum"),
        Work("bnblog", "BN blog", 2020, "", "contrastive", 5, "is batch normalization BYOL's hidden contrast?"),
        Work("byolv2", "BYOL GN+WS", 2020, "2010.10241", "byol", 5, "BYOL without any batch statistics"),
        Work("mocov3", "MoCo v3", 2021, "2104.02057", "mocov3", 2, "vision transformers, and why they are unstable"),
        Work("dino", "DINO", 2021, "2104.14294", "dino", 4, "self-distillation of vision transformers"),
        Work(
            "barlow", "Barlow Twins", 2021, "2103.03230", "barlow", 6, "the correlations of two views' features: the identity"
        ),
        Work("vicreg", "VICReg", 2021, "2105.04906", "vicreg", 6, "variance, invariance and covariance as three terms", True),
    )
}
STEPS = (
    Step("instdisc", "mocov1",
         "Each image as a class of its own, told apart from remembered ones; MoCo replaces the bank of all images "
         "by a queue of keys that a slowly moving encoder keeps alike (60.6 against 58.0 with the bank, at K = "
         "65536)."),
    Step("mocov1", "mocov2",
         "Queue and momentum encoder stay as they are; with a two-layer head, stronger augmentation and a cosine "
         "schedule linear accuracy after 200 epochs rises from 60.6 to 67.5."),
    Step("mocov2", "mocov3",
         "The contrastive loss against keys of a momentum encoder; the queue goes, since the batch of 4096 is "
         "large enough to hold the negatives."),
    Step("invaspread", "simclr",
         "One encoder, trained end to end, and the other images of the batch as negatives; SimCLR adds the batch "
         "size, the augmentations and the head that it takes for this to work."),
    Step("simclr", "mocov2", "The projection head and the stronger augmentations, without the large batch."),
    Step("simclr", "simclrv2",
         "The same loss with a larger encoder and a deeper head, of which fine-tuning keeps the first layer; then "
         "distillation on images without labels."),
    Step("simclr", "byol",
         "Two augmented views with SimCLR's set of augmentations, and a projection head; the negatives go."),
    Step("byol", "simsiam", "Predictor and stop-gradient; the moving target goes: both branches share their weights."),
    Step("simsiam", "mocov3",
         "A Siamese network with a prediction head on one side only and a loss symmetric in both views; MoCo v3 "
         "keeps the negatives and the momentum encoder."),
    Step("simsiam", "dino",
         "Two branches without negatives, the gradient through one of them only; DINO avoids collapse by centring "
         "and sharpening the teacher instead of by a predictor."),
    Step("byol", "bnblog",
         "BYOL's network without the batch norms in its heads: on STL-10 it falls from 57.7 to 28.3, the level of "
         "random features (28.8), from which the blog concludes that batch statistics act as an implicit contrast."),
    Step("bnblog", "byolv2",
         "The question; the answer is a BYOL with group normalization and weight standardization, which has no "
         "batch statistics at all and reaches 73.9, BYOL itself 74.3."),
    Step("cpcv1", "cpcv2",
         "Equations and aim; a larger encoder with layer norm, fewer and larger patches, predictions in four "
         "directions and augmentation patch by patch: 48.7 becomes 71.5."),
    Step("cmc", "infomin",
         "Learning from views that share information (the same first author); InfoMin asks how much they should "
         "share."),
    Step("deepcluster", "swav",
         "Cluster assignments as targets; SwAV computes them online, batch by batch, under equal use of all "
         "prototypes, where DeepCluster clusters the whole set once an epoch."),
    Step("cpcv1", "mocov1", "The loss, InfoNCE: a softmax over one positive and many negatives.", True),
    Step("instdisc", "cmc",
         "Noise-contrastive estimation against a memory of all images, which CMC keeps once for each modality.", True),
    Step("mocov2", "infomin", "The machinery of its ImageNet numbers: queue, momentum encoder and head are MoCo v2's.", True),
    Step("mocov2", "bnblog",
         "The loss of the blog's explicitly contrastive row, which is what the method contrastive here trains.", True),
    Step("byol", "mocov3", "The prediction head on the query side, which the paper credits to BYOL.", True),
    Step("byol", "dino", "A teacher that is the moving average of the student.", True),
    Step("swav", "dino", "Multi-crop: small crops learn to predict what the teacher says of large ones.", True),
    Step("deepcluster", "deepclusterv2", "k-means of the whole set once an epoch, whose clusters are the classes.", True),
    Step("swav", "deepclusterv2",
         "Projection head, multi-crop and schedule; the centroids are the classifier. SwAV's paper has both.", True),
    Step("barlow", "vicreg",
         "Decorrelated channels: VICReg's covariance term is Barlow Twins' off-diagonal one, taken of each view by"
         " itself.", True),
)  # fmt: skip


def of_method(name: str) -> list[Work]:
    """The works that a method here trains: BYOL's file has two."""
    return [work for work in WORKS.values() if work.method == name]


def ancestors(name: str) -> list[Step]:
    """What the works of a method took over from others; an edge between two works of one method is among them."""
    return [step for step in STEPS if WORKS[step.newer].method == name]


def descendants(name: str) -> list[Step]:
    return [step for step in STEPS if WORKS[step.older].method == name and WORKS[step.newer].method != name]


# -- the picture: a column for each year, wider where works of one year rest on one another -------------------------------

_BOX, _TALL = 114, 36  # pixels of the picture, which is as wide as a page of a laptop
_GAP, _ROW = 32, 56
_LEFT, _TOP = 8, 34


def columns() -> dict[str, int]:
    """The column of each work: after all of earlier years, and after whatever of its own year it rests on."""
    depth: dict[str, int] = {}

    def deep(name: str) -> int:
        if name not in depth:
            mine = WORKS[name].year
            below = [deep(step.older) for step in STEPS if step.newer == name and WORKS[step.older].year == mine]
            depth[name] = max(below, default=-1) + 1
        return depth[name]

    years = sorted({work.year for work in WORKS.values()})
    wide = {year: 1 + max(deep(work.id) for work in WORKS.values() if work.year == year) for year in years}
    first = {year: sum(wide[each] for each in years if each < year) for year in years}
    return {work.id: first[work.year] + deep(work.id) for work in WORKS.values()}


def drawn(link: Callable[[str], str], marked: str = "") -> str:
    """The tree as an SVG element whose boxes link to `link(method)`; those of the method `marked` are set off.

    Its colours are the page's (see `STYLE`). Below it must stand the same in words: lines say
    nothing to a reader who hears them.
    """
    places = columns()
    taken = {(column, WORKS[name].lane) for name, column in places.items()}
    lanes = 1 + max(work.lane for work in WORKS.values())
    last = max(places.values())
    width = 2 * _LEFT + (last + 1) * _BOX + last * _GAP
    height = _TOP + lanes * _ROW
    parts = [
        f'<svg class="tree" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="group" '
        'aria-labelledby="tree-title"><title id="tree-title">Family tree of the methods, from left to right; '
        "the list below says the same in words</title>"
    ]
    parts += _years(places, height)
    # the documents' edges last, so that they lie on top
    for step in sorted(STEPS, key=lambda step: not step.ours):
        told = f"{WORKS[step.older].name} to {WORKS[step.newer].name}: {step.says}"
        kind = "edge ours" if step.ours else "edge"
        path = _path(places, taken, step)
        parts.append(f'<g aria-hidden="true"><title>{escape(told)}</title><path class="{kind}" d="{path}"/></g>')
    parts += [_box(work, places[work.id], link(work.method), work.method == marked) for work in WORKS.values()]
    return "".join([*parts, "</svg>"])


def _x(column: int) -> int:
    return _LEFT + column * (_BOX + _GAP)


def _y(lane: int) -> float:
    """The middle of a lane."""
    return _TOP + lane * _ROW + _ROW / 2


def _years(places: dict[str, int], height: int) -> Iterator[str]:
    """The headings, each with a line before it."""
    for year in sorted({work.year for work in WORKS.values()}):
        column = min(places[work.id] for work in WORKS.values() if work.year == year)
        x = _x(column)
        if column:
            yield f'<path class="year" d="M{x - _GAP // 2} 6V{height}"/>'
        yield f'<text class="year" x="{x}" y="20">{year}</text>'


def _path(places: dict[str, int], taken: set[tuple[int, int]], step: Step) -> str:
    """Level along a lane that is free, and over to the other lane in the gap between two columns: in the last one if the older
    work's lane is free as far as there, else in the first."""
    start, end = places[step.older], places[step.newer]
    from_lane, to_lane = WORKS[step.older].lane, WORKS[step.newer].lane
    x0, x1 = _x(start) + _BOX, _x(end) - 4
    y0, y1 = _y(from_lane), _y(to_lane)
    late = all((column, from_lane) not in taken for column in range(start + 1, end))
    turn = _x(end) - _GAP if late else _x(start) + _BOX
    middle = turn + _GAP / 2
    bend = f"C{middle} {y0:g} {middle} {y1:g} {turn + _GAP - 4} {y1:g}"
    return f"M{x0} {y0:g}H{turn}{bend}H{x1}"


def _box(work: Work, column: int, href: str, marked: bool) -> str:
    x, y = _x(column), _y(work.lane) - _TALL / 2
    kind = "work" + (" ours" if work.ours else "") + (" marked" if marked else "")
    said = escape(f"{work.name}, {work.year}: {work.what}")
    return (
        f'<a href="{escape(href)}" aria-label="{said}"><title>{said}</title>'
        f'<rect class="{kind}" x="{x}" y="{y:g}" width="{_BOX}" height="{_TALL}" rx="6"/>'
        f'<text x="{x + _BOX / 2:g}" y="{y + _TALL / 2 + 5:g}" text-anchor="middle">{escape(work.name)}</text></a>'
    )


STYLE = """
.tree { font: 13.5px system-ui, sans-serif; max-width: none; display: block; }
.tree text { fill: var(--link, currentColor); }
.tree text.year { fill: var(--quiet, currentColor); font-weight: 600; }
.tree path { fill: none; stroke: var(--quiet, currentColor); stroke-width: 1.5; }
.tree path.year { stroke: var(--line, currentColor); stroke-width: 1; }
.tree .ours { stroke-dasharray: 4 4; }
.tree g:hover path { stroke: var(--link, currentColor); stroke-width: 2.5; }
.tree rect { fill: var(--raised, none); stroke: var(--quiet, currentColor); }
.tree rect.marked { stroke: var(--link, currentColor); stroke-width: 2.5; }
.tree a:hover text { text-decoration: underline; }
.tree a:focus-visible rect { stroke: var(--link, currentColor); stroke-width: 3; }
"""
