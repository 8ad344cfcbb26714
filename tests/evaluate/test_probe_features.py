"""Which features a probe takes: all of them only where something else wants them too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.evaluate.probe import linear_probe
from benchmark.evaluate.subject import Place, Subject
from benchmark.plan.evaluations import read_protocols
from tests.evaluate.subjects import drawn_subject


def probed(subject: Subject, stem: str, folder: Path, **said: Any) -> dict[str, float]:
    [protocol] = read_protocols({"linear_barlow": {"epochs": 1, "batch_size": 40, **said}}, " > ".join)
    return linear_probe(subject, protocol, Place(folder, stem)).metrics


def test_without_the_gap_the_training_images_features_are_not_taken_again(tmp_path: Path) -> None:
    subject = drawn_subject(tmp_path, held_out=0.2)
    alone = probed(subject, "alone", tmp_path, gap=False)
    assert "features" not in vars(subject)
    assert len(subject.features.test_x) == 100
    assert probed(subject, "beside", tmp_path, gap=False) == alone  # they are there, for another protocol


def test_without_held_out_images_there_is_no_gap_to_take_them_for(tmp_path: Path) -> None:
    subject = drawn_subject(tmp_path)
    subject = replace(subject, split=replace(subject.split, held_out=np.arange(0)))
    assert "gap" not in probed(subject, "unheld", tmp_path, gap=True)
    assert "features" not in vars(subject)
