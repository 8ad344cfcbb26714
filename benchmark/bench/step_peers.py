"""The steps of lightly and solo-learn, put together from their parts as their own examples do, on our encoder and widths.

solo-learn pins torch 1.9 and Lightning 1.4, with which nothing else here runs; its losses are plain functions and load without
the rest of it. Networks, queue and moving average around them are those of `step_minimal`.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.bench.step_minimal import HIDDEN, OUT, PROTOTYPES, QUEUE, Loop, frozen, mlp, move, unit

Peer = Callable[[nn.Module, int], Loop]


def _joint(net: nn.Module, criterion: Callable[[Tensor, Tensor], Tensor]) -> Loop:
    """Two views through one network, and a loss of their outputs."""
    return Loop([net], lambda views, index, labels: criterion(net(views[0]), net(views[1])))


def _bootstrapped(
    net: nn.Module,
    predictor: nn.Module,
    slow: nn.Module,
    criterion: Callable[[Tensor, Tensor], Tensor],
    after: Callable[[], None],
) -> Loop:
    """Each view's prediction against the slow network's output for the other."""

    def loss(views: list[Tensor], index: Tensor, labels: Tensor) -> Tensor:
        p = [predictor(net(view)) for view in views]
        with torch.no_grad():
            t = [slow(view) for view in views]
        return criterion(p[0], t[1]) + criterion(p[1], t[0])

    return Loop([net, predictor], loss, after)


def lightly_simclr(encoder: nn.Module, dim: int) -> Loop:
    from lightly.loss import NTXentLoss
    from lightly.models.modules import SimCLRProjectionHead

    return _joint(nn.Sequential(encoder, SimCLRProjectionHead(dim, HIDDEN, OUT)), NTXentLoss(temperature=0.1))


def lightly_barlow(encoder: nn.Module, dim: int) -> Loop:
    from lightly.loss import BarlowTwinsLoss
    from lightly.models.modules import BarlowTwinsProjectionHead

    return _joint(nn.Sequential(encoder, BarlowTwinsProjectionHead(dim, HIDDEN, OUT)), BarlowTwinsLoss())


def lightly_vicreg(encoder: nn.Module, dim: int) -> Loop:
    from lightly.loss import VICRegLoss
    from lightly.models.modules.heads import VICRegProjectionHead

    return _joint(nn.Sequential(encoder, VICRegProjectionHead(dim, HIDDEN, OUT, num_layers=3)), VICRegLoss())


def lightly_moco(encoder: nn.Module, dim: int) -> Loop:
    from lightly.loss import NTXentLoss
    from lightly.models.modules import MoCoProjectionHead
    from lightly.models.utils import batch_shuffle, batch_unshuffle, update_momentum

    net = nn.Sequential(encoder, MoCoProjectionHead(dim, HIDDEN, OUT))
    slow, criterion = frozen(net), NTXentLoss(temperature=0.2, memory_bank_size=(QUEUE, OUT))

    def loss(views: list[Tensor], index: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            shuffled, order = batch_shuffle(views[1])
            k = batch_unshuffle(slow(shuffled), order)
        found: Tensor = criterion(net(views[0]), k)
        return found

    return Loop([net], loss, lambda: update_momentum(net, slow, 0.999))


def lightly_byol(encoder: nn.Module, dim: int) -> Loop:
    from lightly.loss import NegativeCosineSimilarity
    from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead
    from lightly.models.utils import update_momentum

    net, predictor = nn.Sequential(encoder, BYOLProjectionHead(dim, HIDDEN, OUT)), BYOLPredictionHead(OUT, HIDDEN, OUT)
    slow = frozen(net)
    return _bootstrapped(net, predictor, slow, NegativeCosineSimilarity(), lambda: update_momentum(net, slow, 0.996))


def lightly_simsiam(encoder: nn.Module, dim: int) -> Loop:
    from lightly.loss import NegativeCosineSimilarity
    from lightly.models.modules import SimSiamPredictionHead, SimSiamProjectionHead

    net, predictor = nn.Sequential(encoder, SimSiamProjectionHead(dim, HIDDEN, OUT)), SimSiamPredictionHead(OUT, HIDDEN, OUT)
    criterion = NegativeCosineSimilarity()

    def loss(views: list[Tensor], index: Tensor, labels: Tensor) -> Tensor:
        z = [net(view) for view in views]
        p = [predictor(z_i) for z_i in z]
        found: Tensor = 0.5 * (criterion(p[0], z[1].detach()) + criterion(p[1], z[0].detach()))
        return found

    return Loop([net, predictor], loss)


def lightly_swav(encoder: nn.Module, dim: int) -> Loop:
    from lightly.loss import SwaVLoss
    from lightly.models.modules import SwaVProjectionHead, SwaVPrototypes

    net, prototypes = nn.Sequential(encoder, SwaVProjectionHead(dim, HIDDEN, OUT)), SwaVPrototypes(OUT, PROTOTYPES)
    criterion = SwaVLoss(sinkhorn_epsilon=0.05)

    def loss(views: list[Tensor], index: Tensor, labels: Tensor) -> Tensor:
        prototypes.normalize()
        scores = [prototypes(unit(net(view))) for view in views]
        found: Tensor = criterion(scores, [])
        return found

    return Loop([net, prototypes], loss)


def lightly_dino(encoder: nn.Module, dim: int) -> Loop:
    from lightly.loss import DINOLoss
    from lightly.models.modules import DINOProjectionHead
    from lightly.models.utils import update_momentum

    net = nn.Sequential(encoder, DINOProjectionHead(dim, HIDDEN, OUT, PROTOTYPES))
    # A weight-normed layer computes its weight at every forward and keeps it, which cannot be copied.
    head = DINOProjectionHead(dim, HIDDEN, OUT, PROTOTYPES)
    head.load_state_dict(net[1].state_dict())
    slow = nn.Sequential(frozen(encoder), head.requires_grad_(False))
    criterion = DINOLoss(PROTOTYPES)

    def loss(views: list[Tensor], index: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            teacher = [slow(view) for view in views]
        found: Tensor = criterion(teacher, [net(view) for view in views], teacher_temp=0.04)
        return found

    return Loop([net], loss, lambda: update_momentum(net, slow, 0.996))


def _solo(name: str) -> Any:
    """A module of solo-learn's losses, without the package's own import of Lightning."""
    if "solo" not in sys.modules:
        spec = importlib.util.find_spec("solo")
        if spec is None or spec.submodule_search_locations is None:
            raise ModuleNotFoundError("No module named 'solo'")
        for package, inner in (("solo", ""), ("solo.losses", "/losses"), ("solo.utils", "/utils")):
            module = types.ModuleType(package)
            module.__path__ = [f"{path}{inner}" for path in spec.submodule_search_locations]
            sys.modules[package] = module
    return importlib.import_module(f"solo.{name}")


def solo_simclr(encoder: nn.Module, dim: int) -> Loop:
    return _joint(nn.Sequential(encoder, mlp(dim, HIDDEN, OUT)), _solo("losses.simclr").simclr_loss_func)


def solo_barlow(encoder: nn.Module, dim: int) -> Loop:
    return _joint(nn.Sequential(encoder, mlp(dim, HIDDEN, HIDDEN, OUT)), _solo("losses.barlow").barlow_loss_func)


def solo_vicreg(encoder: nn.Module, dim: int) -> Loop:
    return _joint(nn.Sequential(encoder, mlp(dim, HIDDEN, HIDDEN, OUT)), _solo("losses.vicreg").vicreg_loss_func)


def solo_byol(encoder: nn.Module, dim: int) -> Loop:
    net, predictor = nn.Sequential(encoder, mlp(dim, HIDDEN, OUT)), mlp(OUT, HIDDEN, OUT)
    slow = frozen(net)
    return _bootstrapped(net, predictor, slow, _solo("losses.byol").byol_loss_func, lambda: move(slow, net, 0.996))


def solo_simsiam(encoder: nn.Module, dim: int) -> Loop:
    net, predictor = nn.Sequential(encoder, mlp(dim, HIDDEN, HIDDEN, OUT), nn.BatchNorm1d(OUT)), mlp(OUT, HIDDEN, OUT)
    criterion = _solo("losses.simsiam").simsiam_loss_func

    def loss(views: list[Tensor], index: Tensor, labels: Tensor) -> Tensor:
        z = [net(view) for view in views]
        p = [predictor(z_i) for z_i in z]
        found: Tensor = (criterion(p[0], z[1]) + criterion(p[1], z[0])) / 2
        return found

    return Loop([net, predictor], loss)


def solo_moco(encoder: nn.Module, dim: int) -> Loop:
    net = nn.Sequential(encoder, mlp(dim, HIDDEN, OUT))
    slow, queue, place = frozen(net), unit(torch.randn(QUEUE, OUT)).T.contiguous(), [0]
    fresh, criterion = list[Tensor](), _solo("losses.moco").moco_loss_func

    def loss(views: list[Tensor], index: Tensor, labels: Tensor) -> Tensor:
        q = unit(net(views[0]))
        with torch.no_grad():
            k = unit(slow(views[1]))
        fresh.append(k)
        found: Tensor = criterion(q, k, queue, 0.2)
        return found

    def after() -> None:
        k = fresh.pop()
        queue[:, place[0] : place[0] + len(k)] = k.T
        place[0] = (place[0] + len(k)) % QUEUE
        move(slow, net, 0.999)

    return Loop([net], loss, after)


PEERS: dict[str, dict[str, Peer]] = {
    "lightly": {
        "simclr": lightly_simclr, "mocov2": lightly_moco, "byol": lightly_byol, "simsiam": lightly_simsiam,
        "barlow": lightly_barlow, "vicreg": lightly_vicreg, "swav": lightly_swav, "dino": lightly_dino,
    },
    "solo-learn": {
        "simclr": solo_simclr, "mocov2": solo_moco, "byol": solo_byol, "simsiam": solo_simsiam, "barlow": solo_barlow,
        "vicreg": solo_vicreg,
    },
}  # fmt: skip
