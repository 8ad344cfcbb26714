"""Small subjects for the tests of protocols: drawn images, a small network, a place for files."""

from pathlib import Path

import torch

from benchmark.data import split_labels
from benchmark.data.datasets import find, prepare
from benchmark.data.split import split
from benchmark.evaluate.subject import Subject
from methods import load
from methods.base import Setting
from methods.encoders import EncoderConfig


def drawn_subject(
    cache: Path, encoder: EncoderConfig | None = None, train: int = 200, test: int = 100, held_out: float = 0.2, seed: int = 0
) -> Subject:
    """An untrained network over the `shapes`, which are drawn: no file is needed."""
    dataset = prepare(find("shapes", None, cache), cache)
    parts = split(split_labels(dataset, "train"), split_labels(dataset, "test"), train, test, held_out)
    torch.manual_seed(seed)
    config = encoder or EncoderConfig(name="convnet", stem="stride2", width=0.25)
    kind = load("random")
    network = kind(kind.Config(), config, Setting()).eval()
    return Subject(network, dataset, parts, 32, ["rgb"], torch.device("cpu"), seed)
