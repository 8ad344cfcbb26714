"""A sweep on photographs of many sizes, under a name of the user's own, from image files to records."""

import numpy as np
import pytest
from PIL import Image

from benchmark.data.loader_resident import ResidentLoader
from benchmark.store.record import read_json


@pytest.fixture
def photographs(tmp_path):
    generator = np.random.default_rng(0)
    for split, count in (("train", 40), ("test", 12)):
        for name in ("cats", "dogs"):
            folder = tmp_path / "animals" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                height, width = generator.integers(40, 90, 2)
                small = generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)
                Image.fromarray(small).resize((int(width), int(height))).save(folder / f"{number}.jpg", quality=90)
    return tmp_path / "animals"


ARGUMENTS = (
    "data.name=animals",
    "data.image_size=24",
    "data.train_images=0",
    "data.test_images=0",
    "epochs=2",
    "batch_size=16",
)


def test_photographs_train_and_are_evaluated(project, photographs):
    """Both loaders of photographs leave the same weights."""
    given = ("--data", f"animals={photographs}", "--only", "method=byol", *ARGUMENTS)
    planned = project.run("--plan", *given)
    assert planned.returncode == 0, planned.stdout + planned.stderr
    assert "animals is not converted yet" in planned.stdout and "1 guessed" in planned.stdout
    weights = []
    for backend in ("ffcv", "torch"):
        done = project.run("--loader", backend, "--mode", "force", *given)
        if backend == "ffcv" and "FFCV cannot be imported" in done.stdout + done.stderr:
            pytest.skip("FFCV cannot be imported")
        assert done.returncode == 0 and "80 train, 24 test" in done.stdout, done.stdout + done.stderr
        weights.append(project.weights("byol"))
    assert weights[0].keys() == weights[1].keys()
    assert all((weights[0][key] == weights[1][key]).all() for key in weights[0])
    record = read_json(project.cell("byol") / "record.json")
    assert record["data"]["name"] == "animals" and record["timing"]["steps"] == 2 * (72 // 16)


def test_photographs_cannot_be_resident(project, photographs):
    given = ("--data", f"animals={photographs}", "--only", "method=byol", *ARGUMENTS)
    done = project.run("--loader", ResidentLoader.backend, *given)
    assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr
    assert "cannot be resident on a device; convert with --storage raw" in " ".join((done.stdout + done.stderr).split())
