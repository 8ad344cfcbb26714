"""The family tree: the documents' edges are all there, no box or line covers another, every box is a link with words."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

from methods.catalogue import CATALOGUE
from reports import lineage
from reports.lineage import STEPS, WORKS

# the edges of the documents' last diagram, in its order
DIAGRAM = (
    ("InstDisc", "MoCo"), ("MoCo", "MoCo v2"), ("MoCo v2", "MoCo v3"), ("InvaSpread", "SimCLR"), ("SimCLR", "MoCo v2"),
    ("SimCLR", "SimCLR v2"), ("SimCLR", "BYOL"), ("BYOL", "SimSiam"), ("SimSiam", "MoCo v3"), ("SimSiam", "DINO"),
    ("BYOL", "BN blog"), ("BN blog", "BYOL GN+WS"), ("CPC", "CPC v2"), ("CMC", "InfoMin"), ("DeepCluster", "SwAV"),
)  # fmt: skip
SVG = "{http://www.w3.org/2000/svg}"


def picture(marked: str = "") -> ElementTree.Element:
    text = lineage.drawn(lambda name: f"methods/{name}.html", marked)
    return ElementTree.fromstring(text.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))


def test_edges_not_marked_as_ours_are_the_diagrams() -> None:
    drawn = {(WORKS[step.older].name, WORKS[step.newer].name) for step in STEPS if not step.ours}
    assert drawn == set(DIAGRAM)
    assert {work.name for work in WORKS.values() if not work.ours} == {name for edge in DIAGRAM for name in edge} | {
        "Barlow Twins"
    }


def test_every_method_that_is_a_papers_own_is_in_the_tree() -> None:
    assert {work.method for work in WORKS.values()} == set(CATALOGUE()["methods"]) - {"random", "supervised"}


def test_the_papers_are_those_of_the_methods() -> None:
    for name, entry in CATALOGUE()["methods"].items():
        works = lineage.of_method(name)
        assert not works or entry["paper"].partition("arXiv:")[2] in {work.arxiv for work in works}
        assert all(not work.arxiv or 2000 + int(work.arxiv[:2]) == work.year for work in works)


def test_time_runs_from_left_to_right() -> None:
    places = lineage.columns()
    assert all(places[step.older] < places[step.newer] for step in STEPS)
    assert all(WORKS[step.older].year <= WORKS[step.newer].year for step in STEPS)


def test_no_two_boxes_share_a_place() -> None:
    boxes = [(column, WORKS[name].lane) for name, column in lineage.columns().items()]
    assert len(set(boxes)) == len(boxes)


def test_no_line_runs_through_a_box() -> None:
    """The level parts of every line, against the boxes of all works but its own two."""
    root = picture()
    boxes = [tuple(float(rect.get(name, "0")) for name in ("x", "y", "width", "height")) for rect in root.iter(f"{SVG}rect")]
    for path in root.iter(f"{SVG}path"):
        if path.get("class") == "year":
            continue
        found = re.fullmatch(r"M(\S+) (\S+)H(\S+?)C\S+ \S+ \S+ \S+ (\S+) (\S+?)H(\S+)", path.get("d", ""))
        assert found is not None
        x0, y0, turn, over, y1, x1 = map(float, found.groups())
        for left, top, width, height in boxes:
            for start, end, y in ((x0, turn, y0), (over, x1, y1)):
                inside = start < left + width - 1 and end > left + 1 and top < y < top + height
                assert not inside, path.get("d")


def test_every_box_is_a_link_with_words_and_one_can_be_set_off() -> None:
    root = picture("byol")
    links = list(root.iter(f"{SVG}a"))
    assert len(links) == len(WORKS)
    assert all(link.get("aria-label") and link.get("href", "").startswith("methods/") for link in links)
    marked = [rect for rect in root.iter(f"{SVG}rect") if "marked" in rect.get("class", "")]
    assert len(marked) == len(lineage.of_method("byol")) == 2
    assert root.get("aria-labelledby") == "tree-title" and root.find(f"{SVG}title") is not None


def test_each_edge_has_a_sentence_of_its_own() -> None:
    assert all(step.says.endswith(".") and len(step.says) > 40 for step in STEPS)
    assert len({(step.older, step.newer) for step in STEPS}) == len(STEPS) == len({step.says for step in STEPS})


def test_what_came_before_is_not_what_came_after() -> None:
    for name in {work.method for work in WORKS.values()}:
        before, after = lineage.ancestors(name), lineage.descendants(name)
        assert all(WORKS[step.newer].method == name for step in before)
        assert all(step not in before and WORKS[step.older].method == name for step in after)
    assert [WORKS[step.older].name for step in lineage.ancestors("simsiam")] == ["BYOL"]
    assert {WORKS[step.newer].name for step in lineage.descendants("simsiam")} == {"MoCo v3", "DINO"}
