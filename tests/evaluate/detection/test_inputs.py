"""What a detector is shown keeps its meaning in float32."""

import numpy as np
import pytest

from benchmark.data.boxes import Photo
from benchmark.evaluate.detection.inputs import example


@pytest.mark.parametrize("flipped", [False, True])
def test_boxes_without_a_side_in_float32_are_left_out(flipped):
    thin = [[800.0, 10.0, 800.00002, 50.0], [100.0, 600.0, 200.0, 600.00002], [700.0, 10.0, 700.01, 50.0]]
    none = np.zeros(3, bool)
    photo = Photo(
        0, "a", "a", 700, 900, np.array(thin), np.arange(3), np.ones(3), none, none, None,
        lambda: np.zeros((700, 900, 3), np.uint8),
    )  # fmt: skip
    boxes = example(photo, 800, 1333, flipped, False)[1]["boxes"]
    assert len(boxes) == 1 and (boxes[:, 2:] > boxes[:, :2]).all()
