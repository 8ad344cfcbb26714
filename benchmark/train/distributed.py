"""One training on several processes (ranks): they meet, each takes its part of every batch, and all take the same steps.

The number of ranks is no part of an experiment. A rank's loss is anything whose mean over the ranks is the loss of the whole
batch (`methods.gather`), so what is left to do here is to average gradients, and to agree: on the loss that is reported, on
when to write a checkpoint, on when to stop. Rank 0 alone reads and writes files; what it reads it tells the others.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors

from methods.gather import rank, world_size

PATIENCE = timedelta(minutes=10)  # for ranks that are started but not heard of


@dataclass(frozen=True)
class Place:
    """Where a process stands among those that train one cell. address, port: of rank 0, where they meet."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0  # among the ranks of its own machine: which GPU it takes
    address: str = "127.0.0.1"
    port: int = 0

    def meeting(self, patience: timedelta = PATIENCE) -> dist.TCPStore:
        """Where the ranks tell one another what is not a tensor; rank 0 keeps it, and keeps it open for the others."""
        leads = self.rank == 0
        return dist.TCPStore(self.address, self.port, self.world_size, leads, patience, wait_for_workers=False)


@contextlib.contextmanager
def joined(place: Place, meeting: dist.Store, device: torch.device) -> Iterator[None]:
    """Within, torch.distributed knows the ranks: gloo between CPUs, NCCL between GPUs as well."""
    backend = "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(place.local_rank % torch.cuda.device_count())
        backend = "cpu:gloo,cuda:nccl"
    if place.address.startswith("127."):  # all on one machine, whose own name need not lead anywhere
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group(backend, store=meeting, rank=place.rank, world_size=place.world_size, timeout=PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """The mean over the ranks of every gradient; a parameter without one on this rank counts as zeros.

    All gradients of a kind go in one message, in the order of the parameters: what is summed with what, and so each bit, does
    not depend on which step a training was resumed at, as it would in buckets that are arranged anew after the first step.
    """
    if world_size() == 1:
        return
    kinds: dict[torch.dtype, list[torch.nn.Parameter]] = {}
    for p in parameters:
        if p.requires_grad:
            kinds.setdefault(p.dtype, []).append(p)
    for trained in kinds.values():
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
        whole = _flatten_dense_tensors(gradients)
        dist.all_reduce(whole)
        whole /= world_size()
        for p, mean in zip(trained, _unflatten_dense_tensors(whole, gradients), strict=True):
            if p.grad is None:
                p.grad = mean.clone()
            else:
                p.grad.copy_(mean)


def agreed(loss: float, stop: bool, save: bool) -> tuple[float, bool, bool]:
    """(the mean loss, whether any rank wants to stop, whether any wants to save): the same on every rank, one message."""
    said = torch.tensor([loss / world_size(), float(stop), float(save)], dtype=torch.float64)
    dist.all_reduce(said)
    mean, stops, saves = said.tolist()
    return mean, stops > 0, saves > 0


def averaged(numbers: dict[str, Any]) -> dict[str, float]:
    """What each rank measured on its own part of the batch, averaged over the ranks; every rank has the same names."""
    values = torch.tensor([float(number) for number in numbers.values()], dtype=torch.float64)
    if world_size() > 1 and len(values):
        dist.all_reduce(values)
        values /= world_size()
    return dict(zip(numbers, values.tolist(), strict=True))


def told_by_the_first(value: Any) -> Any:
    """What rank 0 has here, on every rank."""
    if world_size() == 1:
        return value
    box = [value if rank() == 0 else None]
    dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]
