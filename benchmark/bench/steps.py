"""The time of a training step: ours beside the least code that trains the method, and beside lightly's and solo-learn's.

A step is forward, loss, backward, optimizer and what follows it, on images in memory. All contenders of a method take turns
within one process, in an order that changes; the ratio is the median over the turns of the peer's time over ours.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.bench import step_minimal as minimal
from benchmark.bench import step_minimal_older as older
from benchmark.bench.contender import Announce
from benchmark.bench.record import Goal, Missing, Outcome, Result, measured
from benchmark.bench.step_peers import PEERS
from benchmark.launch.machine import cores
from benchmark.train.loop import gradient_norms
from methods import load
from methods.base import Method, Setting, Step
from methods.encoders import EncoderConfig, build_encoder
from methods.heads import HeadConfig

MINIMAL = minimal.MINIMAL | older.OLDER
UNIT = "ms a step"
LEAST = "a minimal loop"
_LONGER = 1.03  # at most so many times the minimal loop
_NOT_SLOWER = {"lightly": 1.0, "solo-learn": 1.0}
_SMALLEST = 1e-4  # of the learning rate: weights must move, but nothing may diverge


@dataclass(frozen=True)
class Effort:
    """turns: of each contender, after warm. batch: images of 32 x 32 a step; width of the ResNet-18."""

    turns: int = 25
    warm: int = 3
    batch: int = 128
    width: float = 1.0


QUICK = Effort(turns=2, warm=1, width=0.125)

_TWO = HeadConfig(layers=2, hidden=minimal.HIDDEN, out=minimal.OUT)
_THREE = replace(_TWO, layers=3)
_PLAIN = replace(_TWO, norm="none")


def run(effort: Effort, announce: Announce) -> Outcome:
    """Every method that has a minimal loop."""
    outcome = Outcome()
    torch.set_num_threads(cores())
    detail = told(effort)  # said once, it is the same for all
    for name in sorted(MINIMAL):
        announce(f"step of {name}")
        outcome.add(one(name, effort, detail))
        detail = ""
    return outcome


def one(name: str, effort: Effort, detail: str = "") -> Outcome:
    """One method beside all its peers."""
    outcome, bench = Outcome(), f"step of {name}"
    steps = {"ours": watched_step(name, effort, False), LEAST: _looped(name, MINIMAL[name], effort)}
    for peer, has in PEERS.items():
        if name in has:
            try:
                steps[peer] = _looped(name, has[name], effort)
            except ImportError as error:
                outcome.missing.append(Missing(bench, peer, f"cannot be imported: {error}"))
    times = turns_of(steps, effort)
    ours = times.pop("ours")
    for peer, theirs in times.items():
        outcome.results.append(measured(bench, peer, UNIT, theirs, detail=detail if peer == LEAST else ""))
        least = 1 / _LONGER if peer == LEAST else _NOT_SLOWER[peer]
        outcome.results.append(_beside(bench, ours, peer, theirs, least))
    return outcome


def _beside(bench: str, ours: list[float], peer: str, theirs: list[float], least: float) -> Result:
    ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
    goal = Goal(ratio=round(least, 3))
    return Result(
        bench,
        "Retable",
        UNIT,
        statistics.median(ours),
        min(ours),
        max(ours),
        peer,
        ratio,
        goal.text(UNIT),
        goal.met(0.0, ratio),
    )


def told(effort: Effort) -> str:
    width = "" if effort.width == 1 else f" of width {effort.width:g}"
    network = f"ResNet-18{width}, heads of {minimal.HIDDEN} and {minimal.OUT}, queues of {minimal.QUEUE:,}"
    work = f"{effort.batch} images of 32 x 32 a step, bfloat16 autocast, SGD with momentum, {effort.turns} turns"
    return f"{network}, {minimal.PROTOTYPES} prototypes; {work}"


def turns_of(steps: dict[str, Callable[[], None]], effort: Effort) -> dict[str, list[float]]:
    """Milliseconds of each turn, by contender."""
    for step in steps.values():
        for _ in range(effort.warm):
            step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    order, shuffled = list(steps), random.Random(0)
    for _ in range(effort.turns):
        shuffled.shuffle(order)
        for name in order:
            begin = time.perf_counter()
            steps[name]()
            times[name].append(1000 * (time.perf_counter() - begin))
    return times


def images(name: str, batch: int) -> tuple[list[Tensor], Tensor, Tensor]:
    """Views, index and labels: noise is as much work as photographs."""
    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(batch, *shape, generator=generator) for shape in shapes(name)]
    made = [view.contiguous(memory_format=torch.channels_last) if view.ndim == 4 else view for view in made]
    return made, torch.arange(batch), torch.randint(10, (batch,), generator=generator)


def _encoder(effort: Effort) -> EncoderConfig:
    return EncoderConfig(name="resnet18", width=effort.width)


def _optimizer(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=_SMALLEST, momentum=0.9, weight_decay=1e-4)


def _looped(name: str, build: Callable[[nn.Module, int], minimal.Loop], effort: Effort) -> Callable[[], None]:
    torch.manual_seed(0)
    loop = build(*build_encoder(_encoder(effort), shapes(name)[0][-3]))
    for module in loop.modules:
        module.to(memory_format=torch.channels_last).train()
    trained = [p for module in loop.modules for p in module.parameters() if p.requires_grad]
    optimizer, (views, index, labels) = _optimizer(trained), images(name, effort.batch)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loss = loop.loss(views, index, labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        loop.after()

    return step


def built(name: str, encoder: EncoderConfig, batch: int) -> Method:
    """Our method, as wide as its minimal loop."""
    kind, views = load(name), shapes(name)
    setting = Setting(minimal.BANK, 10, batch, num_views=len(views), channels=views[0][-3])
    method = kind(kind.Config(**CONFIGS[name]), encoder, setting)
    if name in ("deepcluster", "deepclusterv2"):  # the clusters that an epoch begins with, without the clustering
        clusters = method.get_buffer("assignment" if name == "deepcluster" else "assignments")
        clusters.copy_(torch.randint(minimal.PROTOTYPES, clusters.shape))
    return method


def watched_step(name: str, effort: Effort, watched: bool) -> Callable[[], None]:
    """Our step, as the training loop takes it; watched: with the telemetry of the steps that it logs, one in many."""
    torch.manual_seed(0)
    method = built(name, _encoder(effort), effort.batch)
    method.to(memory_format=torch.channels_last).train()
    optimizer = _optimizer([p for group in method.param_groups() for p in group["params"]])
    (views, index, labels), at = images(name, effort.batch), Step(1, 1000, 1, watched)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loss, _ = method.loss(views, index, labels, at)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        method.after_backward(at)
        if watched:
            gradient_norms(method)
        optimizer.step()
        method.after_step(at)

    return step


_CPC = {"grid": older.GRID, "steps": older.STEPS, "context_blocks": older.BLOCKS, "context_width": older.CONTEXT}
_PROTOTYPES = minimal.PROTOTYPES
_NEGATIVES = {"negatives": minimal.NEGATIVES}
# The widths and switches of the minimal loops, so that both compute the same.
CONFIGS: dict[str, dict[str, Any]] = {
    "barlow": {"projector": _THREE},
    "byol": {"projector": _TWO, "predictor": _TWO},
    "cmc": _NEGATIVES,
    "contrastive": {"projector": _TWO, "predictor": _TWO, "queue": minimal.QUEUE},
    "cpc": _CPC,
    "cpcv2": _CPC | {"skip": 0, "directions": 1, "target": 0, "scale": 1.0},
    "deepcluster": {"clusters": _PROTOTYPES, "pca": 0},
    "deepclusterv2": {"projector": _TWO, "prototypes": (_PROTOTYPES,) * 3},
    "dino": {
        "hidden": minimal.HIDDEN, "bottleneck": minimal.OUT, "prototypes": _PROTOTYPES, "teacher_temperature": 0.04,
        "warmup_epochs": 0,
    },
    "infomin": {"head": _PLAIN, "patch_head": _PLAIN, "queue": minimal.QUEUE},
    "instdisc": _NEGATIVES,
    "invaspread": {"form": "code"},
    "mocov1": {"queue": minimal.QUEUE, "temperature": 0.2},
    "mocov2": {"head": _PLAIN, "queue": minimal.QUEUE},
    "mocov3": {"projector": replace(_THREE, final_norm=True), "predictor": replace(_TWO, final_norm=True)},
    "simclr": {"projector": _TWO},
    "simclrv2": {"projector": _THREE, "memory": False},
    "simsiam": {"projector": replace(_THREE, final_norm=True), "predictor": _TWO},
    "supervised": {},
    "swav": {"projector": _TWO, "prototypes": _PROTOTYPES, "freeze_steps": 0},
    "vicreg": {"projector": _THREE},
}  # fmt: skip
# Of one sample, where the views are not NUM_VIEWS images of 3 x 32 x 32.
_SHAPES: dict[str, list[tuple[int, ...]]] = {
    "cpc": [(older.GRID**2, 3, 16, 16)],
    "cpcv2": [(older.GRID**2, 3, 16, 16)],
    "deepcluster": [(2, 32, 32)],
    "infomin": [(3, 32, 32)] * 2 + [(9, 3, 16, 16)],
}


def shapes(name: str) -> list[tuple[int, ...]]:
    return _SHAPES.get(name, [(3, 32, 32)] * load(name).NUM_VIEWS)
