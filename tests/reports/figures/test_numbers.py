"""The dot plot, heat map, bars and lines show the numbers of the table, all of them, where its axes say."""

from __future__ import annotations

from itertools import pairwise

import pytest

from reports.figures import bars, heatmap, lines, numbers, sketches
from reports.figures.style import EMPTY, SCALED, widest
from tests.reports.figures.drawn import Picture, table_of

ROWS = {"good": [(60.0, (58.0, 59.0, 60.0))], "bad": [(50.0, (41.0,))], "absent": [(40.0, ())]}


def test_dots_stand_at_the_tables_numbers() -> None:
    picture = Picture(numbers.sketch(table_of(ROWS), {}))
    value = picture.scale("x")
    assert [round(value(x), 2) for x, _ in picture.marks("paper-0")] == [60.0, 50.0, 40.0]
    assert [round(value(x), 2) for x, _ in picture.marks("ours-0")] == [59.0, 41.0]
    assert picture.group("hollow-0") is None
    ticks = {round(float(each.get("x", "nan")), 1) for each in picture.root.iter() if each.tag.endswith("}use")}
    assert {round(x, 1) for text, x, _ in picture.words if text.isdigit()} <= ticks  # a mark at every number of the axis
    heights = [y for _, y in picture.marks("paper-0")]
    assert heights == sorted(heights) and [y for _, y in picture.marks("ours-0")] == heights[:2]  # rows from above
    assert SCALED not in picture.texts and "ours" in picture.texts


def test_numbers_nobody_has_seen_are_hollow_and_another_scale_says_so() -> None:
    picture = Picture(numbers.sketch(table_of(ROWS, status="memory", scale="another scale"), {}))
    assert len(picture.marks("hollow-0")) == 3 and picture.group("paper-0") is None
    assert SCALED in picture.texts and "paper, not seen there" in picture.texts and "paper" not in picture.texts
    assert picture.group("hollow-0") is not None
    seen = Picture(numbers.sketch(table_of(ROWS, status="secondary"), {}))
    assert len(seen.marks("paper-0")) == 3  # a secondary source decides verdicts, so it is not hollow


@pytest.mark.parametrize("count", [1, 25, 51])
def test_long_names_and_many_rows_stay_inside(count: int) -> None:
    name = "a very long name of a row with [settings=one; two=three] & <b>more</b> $x_1$ than there is room for"
    table = table_of({f"{i} {name}": [(50.0 + i, (40.0 + i, 41.0 + i))] for i in range(count)})
    picture = Picture(numbers.sketch(table, {}))
    labels = [(text, x, y) for text, x, y in picture.words if "very long" in text]
    assert len(labels) == count and all(text.endswith("…") for text, _, _ in labels)
    for text, x, _ in labels:
        assert x - 72 * widest([text]) > 0
    heights = sorted(y for _, _, y in labels)
    assert all(b - a > 10 for a, b in pairwise(heights))  # a line of 8 points fits between
    assert all(0 < y < picture.height and 0 < x < picture.width for _, x, y in picture.words)


def test_hostile_labels_are_words_and_nothing_else() -> None:
    hostile = '$\\frac{1}$ <script>alert("1")</script> & \x07% _ {} \u4e2d'
    picture = Picture(numbers.sketch(table_of({hostile: [(50.0, (40.0,))]}, [hostile], title=hostile), {}))
    assert '$\\frac{1}$ <script>alert("1")</script> & % _ {} \u4e2d' in picture.texts
    assert "<script" not in picture.svg


def test_without_runs_the_papers_numbers_are_drawn_only_when_asked_for() -> None:
    rows = {f"batch {2**i}": [(50.0 + i, ()), (51.0 + i, ())] for i in range(4, 8)}
    table = table_of(rows, ["10 epochs", "20 epochs"], figures=("numbers", "curves"), trained=False)
    assert sketches(table, {}) == []
    assert numbers.sketch(table, {}) is None
    (found,) = sketches(table, {}, empty=True)
    for sketch in (found, heatmap.sketch(table, {}, True), bars.sketch(table, {}, True), lines.sketch(table, {}, True)):
        assert any(text.startswith(EMPTY) for text in Picture(sketch).texts)


def test_a_heat_map_prints_its_numbers_and_hatches_what_is_missing() -> None:
    rows = {"1st: Crop": [(33.1, (30.0, 32.0)), (56.3, ())], "1st: Color": [(None, (54.26,)), (18.8, (0.0,))]}
    picture = Picture(heatmap.sketch(table_of(rows, ["2nd: Crop", "2nd: Color"]), {}))

    def printed(panel: str) -> list[str | None]:
        cells = [picture.group(f"{panel}-{y}-{x}") for y in range(2) for x in range(2)]
        return [None if cell is None else "".join(cell.itertext()).strip() for cell in cells]

    assert printed("paper") == ["33.1", "56.3", None, "18.8"]
    assert printed("ours") == ["31.0", None, "54.3", "0.0"]
    assert picture.svg.count("<pattern") >= 1 and {"Crop", "Color"} <= set(picture.texts)
    unseen = Picture(heatmap.sketch(table_of(rows, ["a", "b"], status="unverified"), {}))
    assert "(33.1)" in unseen.texts and "31.0" in unseen.texts


def test_bars_end_at_the_tables_numbers() -> None:
    rows = {"batch 256": [(57.5, (40.0,)), (62.0, (44.0, 46.0))], "batch 512": [(60.7, ()), (64.0, (20.0,))]}
    picture = Picture(bars.sketch(table_of(rows, ["100 epochs", "200 epochs"]), {}))
    ticks = [(float(t), y) for t, _, y in picture.words if t.isdigit()]
    (low, y_low), (high, y_high) = ticks[0], ticks[-1]
    base = max(y for corner in picture.corners("ours-0") for _, y in corner)  # bars begin at 0
    assert low == 0

    def value(y: float) -> float:
        return (y - base) * (high - low) / (y_high - y_low)

    tops = [[round(value(min(y for _, y in corner)), 1) for corner in picture.corners(f"ours-{i}")] for i in range(2)]
    assert tops == [[40.0], [45.0, 20.0]]
    paper = [[round(value(corner[0][1]), 1) for corner in picture.corners(f"paper-{i}")] for i in range(2)]
    assert paper == [[57.5, 60.7], [62.0, 64.0]]
    assert picture.svg.count("<pattern") >= 1  # columns differ in more than colour


def test_bars_that_do_not_begin_at_zero_say_so() -> None:
    rows = {name: [(70.0 + i, (69.5 + i,))] for i, name in enumerate("abcd")}
    (words,) = [text for text in Picture(bars.sketch(table_of(rows), {})).texts if "begins at" in text]
    assert words == "the axis begins at 67"


def test_lines_stand_over_their_levels() -> None:
    rows = {"MoCo": [(50.0, (40.0, 41.0)), (55.0, (45.0,)), (60.0, ())], "bank": [(48.0, ()), (None, (39.0,)), (58.0, ())]}
    picture = Picture(lines.sketch(table_of(rows, ["K=256", "K=1024", "K=65536"]), {}))
    assert picture.sketch.data["factor"] == "K" and {"MoCo", "bank", "paper", "256", "65536"} <= set(picture.texts)
    x = dict(zip((256, 1024, 65536), (mark[0] for mark in picture.marks("paper-0")), strict=True))
    assert abs((x[1024] - x[256]) / (x[65536] - x[256]) - 2 / 8) < 0.01  # a log axis
    assert [mark[0] for mark in picture.marks("ours-1")] == [x[1024]]
    assert len(picture.marks("ours-0")) == 2 and len(picture.marks("paper-1")) == 2


def test_rows_without_numbers_in_their_names_have_no_lines() -> None:
    assert lines.sketch(table_of(ROWS), {}) is None
    assert lines.sketch(table_of({"tau=0": [(1.0, (2.0,))], "tau=0.9": [(3.0, (4.0,))]}), {}) is not None
