"""The same training on one rank and on N: a case returns tensors that must not depend on the number of ranks.

`on_ranks` runs cases in N processes of torch.distributed's gloo; one that fails leaves the others alone. Everything is
computed in float64: what differs, differs by mathematics.
"""

from __future__ import annotations

import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
import torch.distributed as dist
from torch import Tensor, nn

from methods import METHODS, load
from methods.base import Step
from methods.gather import gathered, own_rows, rank, summed, world_size
from methods.memory import KeyQueue
from methods.norms import BatchNorm1d, BatchNorm2d, average_running_statistics
from tests.methods.small import CONFIGS, ENCODER, HEAD, batch, setting, training_set

STEPS, BATCH = 3, 16
_TIMEOUT = timedelta(seconds=30)
Found = dict[str, Tensor]


@dataclass(frozen=True)
class Training:
    """Three steps of a method. changed, encoder: fields of the two configs that differ from tests/methods/small.py."""

    method: str
    changed: dict[str, Any] = field(default_factory=dict)
    encoder: dict[str, Any] = field(default_factory=dict)

    def __call__(self) -> Found:
        kind, encoder = load(self.method), replace(ENCODER, **self.encoder)
        config = kind.Config(**(CONFIGS[self.method] | self.changed))
        torch.manual_seed(0)
        known = replace(setting(self.method, BATCH), num_views=len(self._part(0)[0]))
        method = kind(config, encoder, known).double().train()
        found: Found = {}
        method.prepare(self._part(0)[0])
        for k in range(STEPS):
            step = Step(step=k, total_steps=STEPS + 1, epoch=k)
            if method.EPOCH_PASS:
                method.begin_epoch(k, ((images.double(), index) for images, index in training_set(self.method)))
                method.train()
            loss, logs = method.loss(*self._part(k), step)
            method.zero_grad()
            loss.backward()
            found[f"step {k}: loss"] = _mean(loss.detach())
            trained = [p for p in method.parameters() if p.requires_grad]
            flat = _mean(torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in trained]))
            for p, gradient in zip(trained, flat.split([p.numel() for p in trained]), strict=True):
                p.grad = gradient.view(p.shape).clone()
            logs |= method.after_backward(step)
            assert all(value.isfinite().all() for value in logs.values()), logs
            with torch.no_grad():
                for name, p in method.named_parameters():
                    if p.grad is not None:
                        found[f"step {k}: gradient of {name}"] = p.grad.clone()
                        p.sub_(0.1 * p.grad)
            method.after_step(step)
            average_running_statistics(method)
            found |= {f"step {k}: {name}": value.clone() for name, value in method.state_dict().items()}
        return found

    def _part(self, seed: int) -> tuple[list[Tensor], Tensor, Tensor]:
        """This rank's rows of the whole batch; twice the views where the symmetrization asks for them."""
        views, index, labels = batch(self.method, BATCH, seed)
        if self.changed.get("symmetrization") == "asymmetric_2x":
            views += batch(self.method, BATCH, seed + STEPS)[0]
        return [own_rows(view.double()) for view in views], own_rows(index), own_rows(labels)


@torch.no_grad()
def _mean(x: Tensor) -> Tensor:
    """Over the ranks: what distributed training does to gradients."""
    return summed(x.clone()) / world_size()


def _norm(kind: type[nn.Module], shape: tuple[int, ...], splits: int) -> Callable[[], Found]:
    def run() -> Found:
        torch.manual_seed(0)
        norm = kind(shape[1], splits).double()
        with torch.no_grad():
            norm.weight.normal_()
            norm.bias.normal_()
        found: Found = {}
        for k in range(2):
            x = (3 * torch.randn(shape, dtype=torch.float64) + 2).requires_grad_()
            y = norm(own_rows(x))
            gradient = torch.randn(shape, dtype=torch.float64)
            (y * own_rows(gradient)).sum().mul(world_size()).backward()  # its mean over the ranks is the whole sum
            whole = torch.zeros_like(x)
            own_rows(whole).copy_(own_rows(x.grad))  # type: ignore[arg-type]
            found |= {f"{k} output": gathered(y.detach()), f"{k} input's gradient": _mean(whole)}
            found |= {f"{k} {name}": _mean(p.grad) for name, p in norm.named_parameters()}
            norm.zero_grad()
        average_running_statistics(norm)
        return found | {name: value.double() for name, value in norm.named_buffers()}

    return run


def _gathers() -> Found:
    """A loss that couples all rows, on gathered rows and by a sum over the ranks."""
    torch.manual_seed(0)
    x = torch.randn(8, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(8, 8, dtype=torch.float64)
    z = gathered(own_rows(x).sin())
    moment = summed(own_rows(x).exp().sum(dim=0))
    loss = (weight * (z @ z.T)).sum() + moment.square().sum()
    loss.backward()
    return {"loss": _mean(loss.detach()), "gradient": _mean(x.grad), "rows": gathered(own_rows(x.detach()))}  # type: ignore[arg-type]


def _queue() -> Found:
    torch.manual_seed(0)
    queue = KeyQueue(10, 3).double()
    found: Found = {}
    for k in range(4):
        queue.enqueue(own_rows(torch.randn(4, 3, dtype=torch.float64)))
        found |= {f"{k} {name}": value.clone() for name, value in queue.named_buffers()}
    return found


def _one_rank_fails() -> Found:
    if rank() == 1:
        raise ValueError("rank 1 gives up")
    return {"sum": summed(torch.ones(2))}


def _within_a_rank() -> Found:
    """What the cases above must not do: negatives, and batch statistics, of this rank's rows only."""
    torch.manual_seed(0)
    x = torch.randn(8, 3, dtype=torch.float64)
    z = own_rows(x)
    return {"loss": _mean((z @ z.T).logsumexp(dim=1).mean()), "variance": _mean(z.var(dim=0))}


# What a switch needs beside it, what cannot be switched, and settings beyond the switches.
BESIDE: dict[tuple[str, str, object], dict[str, Any]] = {
    ("byol", "stop_gradient", False): {"target": "online"},
    ("simclr", "predict", True): {"predictor": HEAD},
    ("swav", "predict", True): {"predictor": HEAD},
    ("vicreg", "target", "ema"): {"stop_gradient": True},
}
NEVER: set[tuple[str, str, object]] = {("infomin", "symmetric", True)}
FURTHER: dict[str, list[dict[str, Any]]] = {
    "byol": [{"negatives": 1.0}],
    "simsiam": [{"refresh_every": 2}],
    "swav": [{"queue": 24, "queue_epoch": 1}],
}


def _switched(name: str) -> Iterator[dict[str, Any]]:
    """Every other value of every switch of a method, one at a time, and what FURTHER says."""
    config = load(name).Config
    hints = get_type_hints(config)
    for f in fields(config):
        hint, usual = hints[f.name], CONFIGS[name].get(f.name, f.default)
        for value in (True, False) if hint is bool else get_args(hint) if get_origin(hint) is Literal else ():
            if value != usual and (name, f.name, value) not in NEVER:
                yield {f.name: value} | BESIDE.get((name, f.name, value), {})
    yield from FURTHER.get(name, [])


def _cases() -> dict[str, Callable[[], Found]]:
    cases: dict[str, Callable[[], Found]] = {}
    for name in sorted(METHODS):
        if load(name).TRAINS:
            cases[name] = Training(name)
            cases[f"{name}, statistics in 4 parts"] = Training(name, encoder={"bn_splits": 4})
            for changed in _switched(name):
                said = ", ".join(f"{key}: {str(value).lower()}" for key, value in changed.items())
                cases[f"{name}, {said}"] = Training(name, changed)
    cases["byol, affine norms set from the first batch"] = Training("byol", encoder={"norm": "affine"})
    for splits in (1, 4):
        cases[f"batch norm of vectors in {splits}"] = _norm(BatchNorm1d, (16, 5), splits)
        cases[f"batch norm of maps in {splits}"] = _norm(BatchNorm2d, (16, 5, 3, 2), splits)
    return cases | {"gathered and summed": _gathers, "queue": _queue}


CASES = _cases()
SWITCHES = [name for name, case in CASES.items() if isinstance(case, Training) and case.changed]
WRONG = {"one rank fails": _one_rank_fails, "within a rank": _within_a_rank}


def on_ranks(world: int, names: list[str], folder: Path, seconds: float = 240.0) -> None:
    """Run cases on N ranks; `read` has what they found."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_rank, args=(i, world, names, str(folder))) for i in range(world)]
    for process in processes:
        process.start()
    deadline = time.monotonic() + seconds
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join()


def read(folder: Path, name: str, place: int) -> Found | str:
    """What a rank found in a case; where it failed there, the traceback."""
    path = _path(folder, name, place)
    return torch.load(path, weights_only=True) if path.exists() else "the process ended before it came here"


def _path(folder: Path, name: str, place: int) -> Path:
    return folder / f"{list(CASES | WRONG).index(name)}_{place}.pt"


def _rank(place: int, world: int, names: list[str], folder: str) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    told = dist.FileStore(f"{folder}/told", world)
    for number, name in enumerate(names):
        if not dist.is_initialized():
            meeting = f"file://{folder}/meeting{number}"
            dist.init_process_group("gloo", init_method=meeting, rank=place, world_size=world, timeout=_TIMEOUT)
        try:
            found: Found | str = (CASES | WRONG)[name]()
        except Exception:
            found = traceback.format_exc()
        torch.save(found, _path(Path(folder), name, place))
        told.set(f"{number}/{place}", "failed" if isinstance(found, str) else "done")
        if isinstance(found, str):
            dist.destroy_process_group()  # the others may wait for this one: now they fail too
        if any(told.get(f"{number}/{other}") == b"failed" for other in range(world)) and dist.is_initialized():
            dist.destroy_process_group()
