"""Curves over training: gaps, single seeds, unequal epochs, spikes; and the pictures that evaluations leave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reports.figures import curves, pictures, sketches
from reports.table import Table
from tests.reports.figures.drawn import Picture, run_of, table_of

EPOCHS = [0.0, 1.0, 2.0, 3.0, 4.0]


def trained(**runs: list[dict[str, Any]]) -> tuple[Table, dict[str, Any]]:
    """A table of these rows, each with the curves of its seeds."""
    table = table_of({name: [(50.0, (40.0,))] for name in runs}, seeds={name: len(seeds) for name, seeds in runs.items()})
    found = {f"{name}/{i}": run_of(f"{name}/{i}", one) for name, seeds in runs.items() for i, one in enumerate(seeds)}
    return table, found


def logged(loss: list[float | None], **more: list[Any]) -> dict[str, Any]:
    return {"epoch": EPOCHS[: len(loss)], "loss": loss} | more


def test_a_line_is_the_mean_of_the_seeds_and_its_band_their_range() -> None:
    table, runs = trained(a=[logged([4.0, 2.0, 1.0, 1.0, 1.0]), logged([2.0, 2.0, 1.5, 0.5, 0.5])])
    sketch = curves.training(table, runs)
    assert sketch is not None
    (panel,) = sketch.data["panels"]  # the spread was not logged
    ((name, line),) = panel["lines"]
    assert name == "a" and line["mean"] == [1.0, 0.75, 0.5, 0.25, 0.25]  # of loss / first loss
    assert line["range"] == [[1.0, 0.5, 0.25, 0.25, 0.25], [1.0, 1.0, 0.75, 0.25, 0.25]]
    picture = Picture(sketch)
    x, y = picture.scale("x"), picture.scale("y")
    ((*points,),) = picture.corners("line-0-0")[:1]
    assert [round(x(place), 2) for place, _ in points] == EPOCHS
    steps = [y(place) for _, place in points]
    assert [round(value - steps[0], 2) for value in steps] == [0.0, -0.25, -0.5, -0.75, -0.75]


def test_gaps_are_left_out_and_a_seed_alone_has_no_band() -> None:
    table, runs = trained(a=[logged([4.0, None, float("nan"), True, 1.0])])
    sketch = curves.training(table, runs)
    assert sketch is not None
    ((_, line),) = sketch.data["panels"][0]["lines"]
    assert line["epochs"] == [0.0, 4.0] and line["mean"] == [1.0, 0.25] and line["range"] is None
    Picture(sketch)


def test_seeds_logged_at_other_epochs_are_drawn_each_by_itself() -> None:
    table, runs = trained(a=[logged([4.0, 2.0, 1.0]), logged([4.0, 3.0, 2.0, 1.0])])
    sketch = curves.training(table, runs)
    assert sketch is not None
    ((_, line),) = sketch.data["panels"][0]["lines"]
    assert [len(epochs) for epochs, _ in line["each"]] == [3, 4]
    assert Picture(sketch).svg.count('-line-0-0"') == 2


def test_losses_below_zero_are_not_divided() -> None:
    table, runs = trained(a=[logged([-0.1, -0.5, -0.9])])
    sketch = curves.training(table, runs)
    assert sketch is not None and sketch.data["panels"][0]["title"] == "loss"


@pytest.mark.parametrize(
    "broken", [{}, {"epoch": []}, {"epoch": [0.0], "loss": [1.0]}, {"epoch": EPOCHS, "loss": [1.0]}, {"epoch": 3, "loss": "x"}]
)
def test_nothing_logged_nothing_drawn(broken: dict[str, Any]) -> None:
    table, runs = trained(a=[broken])
    for make in (curves.training, curves.health, curves.neighbours, curves.instability):
        assert make(table, runs) is None


def test_collapse_has_its_edges_and_says_how_many_rows_logged_a_number() -> None:
    one = logged([1.0, 0.9, 0.8], std=[0.5, 0.6, 0.9], effective_rank=[10.0, 20.0, 30.0])
    other = logged([1.0, 0.5, 0.1], std=[0.5, 0.1, 0.01])
    picture = Picture(curves.health(*trained(a=[one], b=[other])))
    assert {"collapsed", "not collapsed", "a", "b", "effective rank (of 1 of 2)"} <= set(picture.texts)
    assert "mean cosine of two images" not in picture.texts


def test_knn_is_drawn_where_it_was_logged() -> None:
    table, runs = trained(a=[logged([1.0, 0.9, 0.8, 0.7, 0.6], knn=[10.0, None, 30.0, None, 50.0])])
    sketch = curves.neighbours(table, runs)
    assert sketch is not None and sketch.data["panels"][0]["lines"][0][1]["mean"] == [10.0, 30.0, 50.0]


def test_spikes_of_the_gradient_are_marked_where_they_are() -> None:
    quiet = [0.1] * 20
    spiked = [*quiet[:8], 3.0, *quiet[9:]]
    run = {"epoch": list(map(float, range(20))), "loss": [1.0] * 20, "gradient/encoder.patch_embed": spiked}
    table, runs = trained(a=[run | {"gradient_norm": quiet}])
    sketch = curves.instability(table, runs)
    assert sketch is not None
    first, whole, _ = sketch.data["panels"]
    assert first["lines"][0][1]["spikes"] == [[8.0, 3.0]] and whole["lines"][0][1]["spikes"] == []
    assert "spike" in Picture(sketch).texts
    own = run | {"gradient_first": quiet}  # what a method logs itself comes first
    again = curves.instability(*trained(a=[own]))
    assert again is not None and again.data["panels"][0]["lines"][0][1]["spikes"] == []
    assert "spike" not in Picture(again).texts


def test_pictures_of_evaluations_with_their_rows_names(tmp_path: Path) -> None:
    from matplotlib.image import imsave

    folder = tmp_path / "cell"
    (folder / "evaluations").mkdir(parents=True)
    imsave(folder / "evaluations" / "x-map.png", [[0.0, 1.0], [0.5, 0.2]])
    (folder / "evaluations" / "secret.txt").write_text("no picture")
    records = [{"pictures": ["x-map.png", "gone.png", "../../secret.txt", "secret.txt"]}, {"pictures": None}]
    table = table_of({"row": [(50.0, (40.0,))], "none": [(50.0, (40.0,))]}, seeds={"row": 2}, figures=("pictures",))
    runs = {f"row/{i}": run_of(f"row/{i}", {}, folder, embedding_map=records) for i in range(2)}
    (sketch,) = sketches(table, runs)
    ((caption, path, _),) = sketch.data["pictures"]
    assert caption == "row: embedding map, seed 0" and Path(path).name == "x-map.png"
    assert caption in Picture(sketch).texts and "data:image/png;base64" in Picture(sketch).svg
    imsave(folder / "evaluations" / "x-map.png", [[1.0, 1.0], [0.5, 0.2]])
    assert sketches(table, runs)[0].digest != sketch.digest  # another picture under the same name
    (folder / "evaluations" / "x-map.png").write_bytes(b"not a picture")
    assert any("cannot be read" in text for text in Picture(sketches(table, runs)[0]).texts)
    assert pictures.sketch(table_of({"none": [(50.0, (40.0,))]}), {}) is None
