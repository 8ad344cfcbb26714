"""The least that trains each method: what somebody would write in an afternoon, without switches, checks or ranks.

Our methods' steps are timed against these. Same encoder, same widths, same views, same optimizer; the mathematics is that of
the papers with nothing left out that costs time. Similarities are in float32, as in the released codes and in ours: of
bfloat16's three digits little is left after a division by 0.07. Nothing here is used for anything else.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HIDDEN, OUT, QUEUE, PROTOTYPES, BANK, NEGATIVES = 512, 128, 4096, 128, 4096, 1024


@dataclass
class Loop:
    """modules: whose trained parameters the optimizer gets. loss: (views, index, labels) -> scalar. after: the optimizer."""

    modules: Sequence[nn.Module]
    loss: Callable[[list[Tensor], Tensor, Tensor], Tensor]
    after: Callable[[], None] = field(default=lambda: None)


def mlp(*widths: int, norm: bool = True) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(itertools.pairwise(widths)):
        last = i == len(widths) - 2
        layers.append(nn.Linear(a, b, bias=last or not norm))
        if not last:
            layers += [nn.BatchNorm1d(b), nn.ReLU(inplace=True)] if norm else [nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def frozen(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module).requires_grad_(False)


def move(slow: nn.Module, fast: nn.Module, momentum: float) -> None:
    with torch.no_grad():
        torch._foreach_lerp_(list(slow.parameters()), list(fast.parameters()), 1 - momentum)


def unit(x: Tensor) -> Tensor:
    return F.normalize(x.float(), dim=1)


def times(a: Tensor, b: Tensor) -> Tensor:
    """A product of matrices in float32, outside autocast."""
    with torch.autocast(a.device.type, enabled=False):
        return a.float() @ b.float()


def supervised(encoder: nn.Module, dim: int) -> Loop:
    head = nn.Linear(dim, 10)
    return Loop([encoder, head], lambda views, index, labels: F.cross_entropy(head(encoder(views[0])).float(), labels))


def instdisc(encoder: nn.Module, dim: int) -> Loop:
    head, bank, tau, fresh = nn.Linear(dim, OUT), unit(torch.randn(BANK, OUT)), 0.07, list[Tensor]()
    z_constant = torch.tensor(0.0)

    def loss(views: list[Tensor], index: Tensor, labels: Tensor) -> Tensor:
        v = unit(head(encoder(views[0])))
        chosen = torch.cat([index[:, None], torch.randint(BANK, (len(v), NEGATIVES))], dim=1)
        scores = torch.exp(times(bank[chosen], v[:, :, None]).squeeze(2) / tau)
        if z_constant == 0:
            z_constant.copy_(scores.detach().mean() * BANK)
        p, noise = scores / z_constant, NEGATIVES / BANK
        fresh.append(v.detach())
        fresh.append(index)
        return -(torch.log(p[:, 0] / (p[:, 0] + noise)) + torch.log(noise / (p[:, 1:] + noise)).sum(dim=1)).mean()

    def after() -> None:
        v, index = fresh
        bank[index] = unit(0.5 * bank[index] + 0.5 * v)
        fresh.clear()

    return Loop([encoder, head], loss, after)


def invaspread(encoder: nn.Module, dim: int) -> Loop:
    head = nn.Linear(dim, OUT)

    def loss(views: list[Tensor], index: Tensor, labels: Tensor) -> Tensor:
        x = torch.cat([unit(head(encoder(view))) for view in views])
        n = len(views[0])
        p = torch.softmax((times(x, x.detach().T) / 0.1).fill_diagonal_(-math.inf), dim=1)
        positive = p[torch.arange(2 * n), torch.arange(2 * n).roll(n)]
        others = torch.log1p(-p).sum() - torch.log1p(-positive).sum()
        return -(torch.log(positive).sum() + others) / (2 * n)

    return Loop([encoder, head], loss)


def simclr(encoder: nn.Module, dim: int, widths: tuple[int, ...] = (HIDDEN, OUT)) -> Loop:
    head = mlp(dim, *widths)

    def loss(views: list[Tensor], index: Tensor, labels: Tensor) -> Tensor:
        z = torch.cat([unit(head(encoder(view))) for view in views])
        n = len(views[0])
        logits = (times(z, z.T) / 0.1).fill_diagonal_(-math.inf)
        return F.cross_entropy(logits, torch.arange(2 * n).roll(n))

    return Loop([encoder, head], loss)


def moco(encoder: nn.Module, dim: int, widths: tuple[int, ...] = (OUT,)) -> Loop:
    net = nn.Sequential(encoder, mlp(dim, *widths, norm=False))
    slow, queue, place, fresh = frozen(net), unit(torch.randn(QUEUE, OUT)), [0], list[Tensor]()

    def loss(views: list[Tensor], index: Tensor, labels: Tensor) -> Tensor:
        q = unit(net(views[0]))
        with torch.no_grad():
            order = torch.randperm(len(q))
            k = unit(slow(views[1][order]))[order.argsort()]
        logits = torch.cat([(q * k).sum(dim=1, keepdim=True), times(q, queue.T)], dim=1) / 0.2
        fresh.append(k)
        return F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long))

    def after() -> None:
        move(slow, net, 0.999)
        k = fresh.pop()
        queue[place[0] : place[0] + len(k)] = k
        place[0] = (place[0] + len(k)) % QUEUE

    return Loop([net], loss, after)


def mocov3(encoder: nn.Module, dim: int) -> Loop:
    net, predictor = nn.Sequential(encoder, mlp(dim, HIDDEN, HIDDEN, OUT)), mlp(OUT, HIDDEN, OUT)
    net.append(nn.BatchNorm1d(OUT, affine=False))
    predictor.append(nn.BatchNorm1d(OUT, affine=False))
    slow = frozen(net)

    def contrast(q: Tensor, k: Tensor) -> Tensor:
        return 0.4 * F.cross_entropy(times(unit(q), unit(k).T) / 0.2, torch.arange(len(q)))

    def loss(views: list[Tensor], index: Tensor, labels: Tensor) -> Tensor:
        q = [predictor(net(view)) for view in views]
        with torch.no_grad():
            k = [slow(view) for view in views]
        return contrast(q[0], k[1]) + contrast(q[1], k[0])

    return Loop([net, predictor], loss, lambda: move(slow, net, 0.99))


def byol(encoder: nn.Module, dim: int) -> Loop:
    net, predictor = nn.Sequential(encoder, mlp(dim, HIDDEN, OUT)), mlp(OUT, HIDDEN, OUT)
    slow = frozen(net)

    def loss(views: list[Tensor], index: Tensor, labels: Tensor) -> Tensor:
        p = [predictor(net(view)) for view in views]
        with torch.no_grad():
            t = [slow(view) for view in views]
        return 4 - 2 * ((unit(p[0]) * unit(t[1])).sum(dim=1).mean() + (unit(p[1]) * unit(t[0])).sum(dim=1).mean())

    return Loop([net, predictor], loss, lambda: move(slow, net, 0.996))


def simsiam(encoder: nn.Module, dim: int) -> Loop:
    net, predictor = nn.Sequential(encoder, mlp(dim, HIDDEN, HIDDEN, OUT), nn.BatchNorm1d(OUT)), mlp(OUT, HIDDEN, OUT)

    def loss(views: list[Tensor], index: Tensor, labels: Tensor) -> Tensor:
        z = [net(view) for view in views]
        p = [predictor(z_i) for z_i in z]
        z = [z_i.detach() for z_i in z]
        return -((unit(p[0]) * unit(z[1])).sum(dim=1).mean() + (unit(p[1]) * unit(z[0])).sum(dim=1).mean()) / 2

    return Loop([net, predictor], loss)


def barlow(encoder: nn.Module, dim: int) -> Loop:
    net, norm = nn.Sequential(encoder, mlp(dim, HIDDEN, HIDDEN, OUT)), nn.BatchNorm1d(OUT, affine=False)

    def loss(views: list[Tensor], index: Tensor, labels: Tensor) -> Tensor:
        a, b = (norm(net(view).float()) for view in views)
        c = times(a.T, b) / len(a)
        on = (torch.diagonal(c) - 1).square().sum()
        return on + 0.005 * (c.square().sum() - torch.diagonal(c).square().sum())

    return Loop([net], loss)


def vicreg(encoder: nn.Module, dim: int) -> Loop:
    net = nn.Sequential(encoder, mlp(dim, HIDDEN, HIDDEN, OUT))

    def terms(z: Tensor) -> Tensor:
        z = z - z.mean(dim=0)
        c = times(z.T, z) / (len(z) - 1)
        variance = F.relu(1 - torch.sqrt(z.var(dim=0) + 1e-4)).mean()
        return 12.5 * variance + (c.square().sum() - torch.diagonal(c).square().sum()) / OUT

    def loss(views: list[Tensor], index: Tensor, labels: Tensor) -> Tensor:
        a, b = (net(view).float() for view in views)
        return 25 * F.mse_loss(a, b) + terms(a) + terms(b)

    return Loop([net], loss)


def swav(encoder: nn.Module, dim: int) -> Loop:
    net, prototypes = nn.Sequential(encoder, mlp(dim, HIDDEN, OUT)), nn.Linear(OUT, PROTOTYPES, bias=False)
    prototypes.weight.data.uniform_(-1, 1)

    @torch.no_grad()
    def codes(scores: Tensor) -> Tensor:
        q = torch.exp((scores - scores.max()) / 0.05)
        for _ in range(3):
            q = q / q.sum(dim=0, keepdim=True) / PROTOTYPES
            q = q / q.sum(dim=1, keepdim=True) / len(q)
        return q * len(q)

    def loss(views: list[Tensor], index: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            prototypes.weight.copy_(unit(prototypes.weight))
        scores = times(unit(net(torch.cat(views))), prototypes.weight.T).chunk(2)
        q = [codes(s) for s in scores]
        swapped = [(q[i] * F.log_softmax(scores[1 - i] / 0.1, dim=1)).sum(dim=1).mean() for i in (0, 1)]
        return -(swapped[0] + swapped[1]) / 2

    return Loop([net, prototypes], loss)


def dino(encoder: nn.Module, dim: int) -> Loop:
    head = nn.Sequential(nn.Linear(dim, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, OUT))
    last = nn.utils.parametrizations.weight_norm(nn.Linear(OUT, PROTOTYPES, bias=False))
    last.parametrizations.weight.original0.data.fill_(1).requires_grad_(False)
    net, centre, fresh = nn.ModuleList([encoder, head, last]), torch.zeros(PROTOTYPES), list[Tensor]()
    slow = frozen(net)

    def run(modules: nn.Module, view: Tensor) -> Tensor:
        encoder, head, last = modules.children()
        scores: Tensor = last(F.normalize(head(encoder(view)), dim=1))
        return scores.float()

    def loss(views: list[Tensor], index: Tensor, labels: Tensor) -> Tensor:
        student = [F.log_softmax(run(net, view) / 0.1, dim=1) for view in views]
        with torch.no_grad():
            scores = [run(slow, view) for view in views]
            teacher = [F.softmax((s - centre) / 0.04, dim=1) for s in scores]
        fresh.append(torch.cat(scores).mean(dim=0))
        return -((teacher[0] * student[1]).sum(dim=1).mean() + (teacher[1] * student[0]).sum(dim=1).mean()) / 2

    def after() -> None:
        centre.mul_(0.9).add_(fresh.pop(), alpha=0.1)
        move(slow, net, 0.996)

    return Loop([net], loss, after)


MINIMAL: dict[str, Callable[[nn.Module, int], Loop]] = {
    "supervised": supervised,
    "instdisc": instdisc,
    "invaspread": invaspread,
    "simclr": simclr,
    "simclrv2": lambda encoder, dim: simclr(encoder, dim, (HIDDEN, HIDDEN, OUT)),
    "mocov1": moco,
    "mocov2": lambda encoder, dim: moco(encoder, dim, (HIDDEN, OUT)),
    "mocov3": mocov3,
    "byol": byol,
    "simsiam": simsiam,
    "barlow": barlow,
    "vicreg": vicreg,
    "swav": swav,
    "dino": dino,
}
