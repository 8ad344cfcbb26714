"""Checkpoints: complete, atomic, and refused with a sentence when they are damaged."""

import pickle
import random

import numpy as np
import pytest
import torch

from benchmark.errors import InputError
from benchmark.train.checkpoint import load, save
from benchmark.train.seeding import random_state, seed_everything, set_random_state, stream


def test_the_state_comes_back_and_loads_anywhere(tmp_path):
    state = {"method": {"w": torch.arange(3.0)}, "step": 7, "random": random_state()}
    save(tmp_path / "checkpoint.pt", state)
    assert load(tmp_path / "checkpoint.pt")["step"] == 7
    plain = torch.load(tmp_path / "checkpoint.pt", weights_only=True)  # what anybody else would call
    assert torch.equal(plain["method"]["w"], torch.arange(3.0))


def test_generators_go_on_where_they_stood(tmp_path):
    seed_everything(3, "train")
    state = random_state()
    save(tmp_path / "checkpoint.pt", {"random": state})

    def draw():
        return torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()

    first = draw()
    set_random_state(load(tmp_path / "checkpoint.pt")["random"])
    assert draw() == first


def test_streams_differ_by_seed_and_by_name():
    assert len({stream(seed, name) for seed in range(50) for name in ("init", "train")}) == 100


@pytest.mark.parametrize("where", [0, 10, 0.3, 0.5, 0.9, -1])
def test_a_flipped_byte_is_noticed(tmp_path, where):
    path = tmp_path / "checkpoint.pt"
    save(path, {"method": {"w": torch.randn(5000)}})
    content = bytearray(path.read_bytes())
    position = int(where * len(content)) if isinstance(where, float) else where
    content[position] ^= 0xFF
    path.write_bytes(content)
    try:
        state = load(path)
    except InputError as error:
        assert str(path) in str(error)
        assert "delete this file" in str(error)
    else:  # a byte of padding or of the comment field: nothing that was saved has changed
        assert torch.isfinite(state["method"]["w"]).all()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut off"])
def test_a_file_of_something_else(tmp_path, content):
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(content)
    with pytest.raises(InputError, match="delete this file to begin its training anew"):
        load(path)


def test_a_truncated_checkpoint(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save(path, {"method": {"w": torch.randn(5000)}})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="damaged"):
        load(path)


class Evil:
    def __reduce__(self):
        return (print, ("this must not run",))


def test_code_in_a_checkpoint_does_not_run(tmp_path, capsys):
    path = tmp_path / "checkpoint.pt"
    torch.save({"format": 1, "x": Evil()}, path)
    with pytest.raises(InputError):
        load(path)
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(InputError):
        load(path)
    assert "must not run" not in capsys.readouterr().out
