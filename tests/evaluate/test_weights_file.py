"""Files of weights of any bytes and of any contents: a sentence each, never a traceback."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from benchmark.errors import InputError
from benchmark.evaluate.foreign import check, open_foreign
from benchmark.evaluate.weights_file import read_weights


def written(path: Path) -> Path:
    generator = np.random.default_rng(0)
    array = generator.standard_normal((8, 3, 7, 7), dtype=np.float32)
    if path.suffix == ".npz":
        np.savez_compressed(path, **{"conv1.weight": array})  # type: ignore[arg-type]
    elif path.suffix == ".safetensors":
        save_file({"conv1.weight": torch.from_numpy(array)}, path)
    else:
        torch.save({"conv1.weight": torch.from_numpy(array)}, path, _use_new_zipfile_serialization=path.suffix == ".pth")
    return path


@pytest.mark.parametrize("ending", [".npz", ".safetensors", ".pth", ".pkl"])
def test_a_damaged_file_is_read_or_refused(ending: str, tmp_path: Path) -> None:
    whole = written(tmp_path / f"whole{ending}").read_bytes()
    damaged, draws, refused = tmp_path / f"damaged{ending}", random.Random(0), 0
    for _ in range(150):
        content = bytearray(whole)
        for _ in range(draws.randint(1, 4)):  # most of the structure is at the two ends
            at = draws.choice((draws.randrange(len(content)), draws.randrange(200), len(content) - 1 - draws.randrange(200)))
            content[at] = draws.randrange(256)
        damaged.write_bytes(content[: draws.randrange(len(content))] if draws.random() < 0.2 else content)
        try:
            read_weights(damaged)
        except InputError as error:
            refused += 1
            assert str(error).startswith(f"{damaged}: ") and "\n" not in str(error)
    assert refused > 50


def test_a_text_is_no_file_of_weights(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("hello world\n")
    with pytest.raises(InputError, match=r"text.pth: is cut off, damaged or no file of weights; copy or download it again$"):
        read_weights(tmp_path / "text.pth")


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        ({0: torch.zeros(3)}, "it holds 0; say what it is with --layout"),
        ({"state_dict": {0: torch.zeros(3)}}, "it holds state_dict: 0...; say what it is with --layout"),
        ({"model": {("a", 1): torch.zeros(3)}}, "say what it is with --layout"),
        (
            {
                "patch_embed.proj.weight": torch.zeros(192, 3, 8, 8),
                "blocks.11.x": torch.ones(1),
                "pos_embed": torch.zeros(1, 0, 192),
            },
            "its positions have the shape (1, 0, 192), which is not a square and a class token",
        ),
        (
            {"config": {"method": "simclr"}, "method": {"encoder.conv1.weight": "x"}, "format": 1},
            "its method holds encoder.conv1.weight, which is no tensor",
        ),
    ],
)
def test_contents_that_are_no_tensors_by_name(contents: dict[Any, Any], words: str, tmp_path: Path) -> None:
    torch.save(contents, tmp_path / "given.pth")
    with pytest.raises(InputError) as error:
        check(open_foreign(read_weights(tmp_path / "given.pth"), "auto", {}), tmp_path / "given.pth")
    assert words in str(error.value) and "\n" not in str(error.value)
