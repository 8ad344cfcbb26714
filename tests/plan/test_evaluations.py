"""What a sweep may ask to be measured, and what that becomes on a cell."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmark.data.split import split
from benchmark.errors import InputError
from benchmark.launch.work import Site
from benchmark.launch.worker import _at_hand
from benchmark.plan.cell import Evaluation
from benchmark.plan.evaluations import boxes_of, on_cell, read_protocols
from benchmark.plan.protocols import PROTOCOLS
from benchmark.plan.sweep import box_names, load_sweep

DATA = {"data": {"train_images": 100, "held_out": 0.1}}

TEXT = """
question: q
base: {{method: byol, epochs: 1, batch_size: 10, data: {{name: shapes, train_images: 100}}}}
rows: {{a: {{}}}}
evaluate: {evaluate}
profiles: {{smoke: {{}}}}
"""


def read(wanted):
    return read_protocols(wanted, lambda path: f"s.yaml:1: {' > '.join(('evaluate', *path))}")


def sweep(tmp_path: Path, evaluate: str):
    path = tmp_path / "s.yaml"
    path.write_text(TEXT.format(evaluate=evaluate))
    return load_sweep(path)


def test_a_list_of_names_is_the_same_as_their_defaults():
    assert read(["knn", "collapse"]) == read({"knn": {}, "collapse": None})
    assert read({"knn": {"k": 200, "temperature": 0.07}})[0] == read(["knn"])[0]


def test_one_protocol_several_times():
    first, second = read({"knn": [{"k": 5}, {"k": 7}]})
    assert (first["k"], second["k"]) == (5, 7)
    assert Evaluation("c", first).id != Evaluation("c", second).id
    assert Evaluation("c", first).id == Evaluation("c", read({"knn": {"k": 5}})[0]).id


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("knn", "s.yaml:1: evaluate: expected a list of protocols among knn, "),
        (["kn"], "s.yaml:1: evaluate: unknown protocol 'kn'; allowed: .*did you mean 'knn'"),
        (["knn", "knn"], "s.yaml:1: evaluate: knn is asked for twice; keep one"),
        ({"knn": []}, "s.yaml:1: evaluate > knn: an empty list; write its settings, or knn: {}"),
        (
            {"knn": [{"k": 200}, {}]},
            r"s.yaml:1: evaluate > knn > \[1\]: knn is asked for twice with the same settings; keep one",
        ),
        (
            {"knn": [{"temprature": 2}]},
            r"s.yaml:1: evaluate > knn > \[0\] > temprature: unknown key; .*did you mean 'temperature'",
        ),
        ({"knn": {"k": "many"}}, "s.yaml:1: evaluate > knn > k: expected a whole number, found the text 'many'"),
        ({"linear": {"l2_low": 1, "l2_high": 0}}, "s.yaml:1: evaluate > linear: l2_low is above l2_high"),
        ({"knn": False}, "s.yaml:1: evaluate > knn: expected a section with keys among k, .*, found the truth value false"),
        ({"knn": [{}, 0]}, r"s.yaml:1: evaluate > knn > \[1\]: expected a section with keys among k, .*, found the number 0"),
    ],
)
def test_what_cannot_be_meant_is_refused(wanted, words):
    with pytest.raises(InputError, match=words):
        read(wanted)


def test_a_line_of_the_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"s.yaml:5: evaluate > knn > \[1\] > k: must be above 0, found 0"):
        sweep(tmp_path, "{knn: [{k: 3}, {k: 0}]}")


def test_settings_that_do_not_go_together_are_refused():
    """A config's own words, at the place in the file."""
    with pytest.raises(InputError, match=r"s\.yaml:1: evaluate > linear_moco: milestones .* do not all lie within 2 epochs"):
        read({"linear_moco": {"epochs": 2}})


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("detection_voc07", {"batch_size": 0}, "0"),
        ("detection_voc07", {"trials": 0}, "trials is 0, it must be at least 1"),
        ("detection_voc07", {"iterations": 10}, r"milestones \[6750, 8250\] do not rise within 10 iterations"),
        ("detection_voc07", {"milestones": [20, 10]}, r"milestones \[20, 10\] do not rise"),
        ("detection_voc07", {"train_sides": [0, 480]}, r"train_sides is \[0, 480\]"),
        ("detection_coco_fpn", {"anchor_sides": [32, 64]}, "anchor_sides has 2 sides; fpn has five levels"),
        ("detection_coco", {"dataset": "voc07"}, "masks is true, but voc07 is read without masks"),
        ("detection_voc07", {"train_sides": []}, r"train_sides is \[\]; give sides in pixels"),
        ("detection_voc07", {"anchor_sides": []}, r"anchor_sides is \[\]; give sides in pixels"),
        ("detection_voc07", {"roi_positive": 3}, "roi_positive is 3.0, it is at most 1"),
        ("detection_voc07", {"nms_threshold": 5}, "nms_threshold is 5.0, it is at most 1"),
        ("detection_voc07", {"score_threshold": 5}, "score_threshold is 5.0, it is at most 1"),
        ("distill", {"schedule": "step", "milestones": [400]}, r"milestones \[400\] do not all lie within 400 epochs"),
        ("distill", {"student": "resnet18", "student_width": 0}, "student_width is 0; a student needs one above 0"),
        ("attention", {"drawn": 0}, "drawn is 0"),
        ("attention", {"mass": 0}, "mass is 0.0"),
        ("embedding_map", {"perplexity": 0}, "perplexity is 0.0"),
        ("embedding_map", {"classes": 0}, "classes is 0"),
        ("detection_voc07", {"freeze_at": 5}, "freeze_at is 5; it is at most 4 of c4"),
        ("detection_coco_fpn", {"freeze_at": 6}, "freeze_at is 6; it is at most 5 of fpn"),
    ],
)
def test_what_no_detector_student_or_map_can_be_is_refused_before_training(name, settings, words):
    with pytest.raises(InputError, match=f"evaluate > {name}.*{words}"):
        read({name: settings})


def test_no_more_neighbours_than_images():
    assert [p["k"] for p in on_cell(read({"knn": {"k": 500}}), DATA)] == [90]
    (chosen,) = on_cell(read({"knn_dino": {"k": 100, "ks": [20, 200, 500]}}), DATA)
    assert (chosen["k"], chosen["ks"]) == (90, [20, 90])
    assert len(on_cell(read({"knn": [{"k": 500}, {"k": 400}]}), DATA)) == 1  # they have become the same
    everything = {"data": {"train_images": 0, "held_out": 0.1}}
    assert [p["k"] for p in on_cell(read({"knn": {"k": 500}}), everything, count=200)] == [180]
    assert [p["k"] for p in on_cell(read({"knn": {"k": 500}}), everything)] == [500]  # nobody knows yet
    more = {"data": {"train_images": 1000, "held_out": 0.1}}  # than there are: all of them
    assert [p["k"] for p in on_cell(read({"knn": {"k": 500}}), more, count=200)] == [180]


@pytest.mark.parametrize("images", [3, 4, 5, 90, 200])
def test_neighbours_are_lowered_to_what_the_split_leaves(images):
    labels = np.arange(200) % 3
    data = {"train_images": images, "held_out": 0.1}
    left = len(split(labels, labels, images, 0, 0.1).train)
    assert [p["k"] for p in on_cell(read({"knn": {"k": 500}}), {"data": data}, count=200)] == [left]


def test_detection_data_is_in_the_identity(tmp_path):
    rows = sweep(tmp_path, "[knn, detection_voc07]").expand("smoke", boxes={"voc07": "0123456789ab"})
    assert box_names(rows) == ["voc07"]
    _, detection = rows[0].cells[0].protocols
    assert (detection["dataset"], detection["content"]) == ("voc07", "0123456789ab")
    without = sweep(tmp_path, "[knn, detection_voc07]").expand("smoke")[0].cells[0]
    assert without.protocols[1]["content"] == "unprepared"
    assert without.id == rows[0].cells[0].id  # the training does not depend on it
    assert without.evaluations[0].id == rows[0].cells[0].evaluations[0].id
    assert without.evaluations[1].id != rows[0].cells[0].evaluations[1].id


def test_a_protocol_without_photographs_has_no_content():
    assert boxes_of({"name": "attention", "dataset": "none"}) is None
    for name in PROTOCOLS:
        (protocol,) = on_cell(read([name]), DATA)
        assert ("content" in protocol) == (boxes_of(protocol) is not None)


def test_a_list_of_images_is_part_of_the_identity(tmp_path):
    listed = tmp_path / "some.txt"
    wanted = {"finetune_simclr_1": {"labels": str(listed)}, "distill": {"teacher": {"labels": str(listed)}}, "finetune": {}}
    data = {"data": {"train_images": 0, "held_out": 0.1}}
    found = []
    for text in (None, "a.jpg\n", "b.jpg\n"):
        if text:
            listed.write_text(text)
        made = on_cell(read_protocols(wanted, lambda path: "evaluate"), data)
        found.append([protocol.get("content") for protocol in made])
        site = Site("", "", {}, "cpu", 1, 0, "auto")
        assert all(_at_hand(site, protocol) for protocol in made)
    assert found[0] == ["unprepared", "unprepared", None]
    assert len({row[0] for row in found}) == len({row[1] for row in found}) == 3
    listed.write_text("a.jpg\n")
    assert [_at_hand(site, protocol) for protocol in made] == [False, False, True]
