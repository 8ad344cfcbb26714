"""Minimal loops of the methods with patches, modalities, clusters or puzzles; see `step_minimal`."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.bench.step_minimal import BANK, HIDDEN, NEGATIVES, OUT, PROTOTYPES, QUEUE, Loop, frozen, mlp, move, times, unit
from methods.encoders import EncoderConfig, build_encoder

GRID, STEPS, CONTEXT, BLOCKS = 3, 2, 64, 2


def contrastive(encoder: nn.Module, dim: int) -> Loop:
    net, predictor = nn.Sequential(encoder, mlp(dim, HIDDEN, OUT)), mlp(OUT, HIDDEN, OUT)
    slow, queue, place, fresh = frozen(net), unit(torch.randn(QUEUE, OUT)), [0], list[Tensor]()

    def contrast(q: Tensor, k: Tensor) -> Tensor:
        logits = torch.cat([(q * k).sum(dim=1, keepdim=True), times(q, queue.T)], dim=1) / 0.2
        return F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long))

    def loss(views: list[Tensor], index: Tensor, labels: Tensor) -> Tensor:
        q = [unit(predictor(net(view))) for view in views]
        with torch.no_grad():
            k = [unit(slow(view)) for view in views]
        fresh.append(k[1])
        return contrast(q[0], k[1]) + contrast(q[1], k[0])

    def after() -> None:
        move(slow, net, 0.996)
        k = fresh.pop()
        queue[place[0] : place[0] + len(k)] = k
        place[0] = (place[0] + len(k)) % QUEUE

    return Loop([net, predictor], loss, after)


def cmc(encoder: nn.Module, dim: int) -> Loop:
    like = EncoderConfig(name="resnet18", width=dim / 512)
    nets = [nn.Sequential(build_encoder(like, channels)[0], nn.Linear(dim, OUT)) for channels in (1, 2)]
    banks, fresh = [unit(torch.randn(BANK, OUT)) for _ in nets], list[Tensor]()
    constants = [torch.tensor(0.0), torch.tensor(0.0)]

    def loss(views: list[Tensor], index: Tensor, labels: Tensor) -> Tensor:
        z = [unit(net(part)) for net, part in zip(nets, views[0].split([1, 2], dim=1), strict=True)]
        chosen = torch.cat([index[:, None], torch.randint(BANK, (len(index), NEGATIVES))], dim=1)
        total, noise = torch.zeros(()), NEGATIVES / BANK
        for a, constant in enumerate(constants):
            scores = torch.exp(times(banks[1 - a][chosen], z[a][:, :, None]).squeeze(2) / 0.07)
            if constant == 0:
                constant.copy_(scores.detach().mean() * BANK)
            p = scores / constant
            total = total - (torch.log(p[:, 0] / (p[:, 0] + noise)) + torch.log(noise / (p[:, 1:] + noise)).sum(dim=1)).mean()
        fresh.extend([index, *(z_a.detach() for z_a in z)])
        return total

    def after() -> None:
        index, *z = fresh
        for bank, z_a in zip(banks, z, strict=True):
            bank[index] = unit(0.5 * bank[index] + 0.5 * z_a)
        fresh.clear()

    return Loop(nets, loss, after)


class _Block(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.narrow, self.across = nn.Conv2d(dim, CONTEXT, 1), nn.Conv2d(CONTEXT, CONTEXT, (1, 3), padding=(0, 1))
        self.down, self.widen = nn.Conv2d(CONTEXT, CONTEXT, (2, 1)), nn.Conv2d(CONTEXT, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.pad(self.across(F.relu(self.narrow(x))), (0, 0, 1, 0))
        return x + self.widen(F.relu(self.down(y)))


def cpc(encoder: nn.Module, dim: int) -> Loop:
    context = nn.Sequential(*(_Block(dim) for _ in range(BLOCKS)), nn.ReLU())
    maps = nn.ModuleList(nn.Conv2d(dim, dim, 1, bias=False) for _ in range(STEPS))

    def loss(views: list[Tensor], index: Tensor, labels: Tensor) -> Tensor:
        n = len(views[0])
        z = encoder(views[0].flatten(0, 1)).view(n, GRID, GRID, dim).permute(0, 3, 1, 2)
        c, everything, total = context(z), z.permute(0, 2, 3, 1).reshape(-1, dim).float(), torch.zeros(())
        places = torch.arange(n * GRID * GRID).view(n, GRID, GRID)
        for k, w in enumerate(maps, start=1):
            predicted = w(c[:, :, :-k]).permute(0, 2, 3, 1).reshape(-1, dim).float()
            total = total + F.cross_entropy(times(predicted, everything.T), places[:, k:].flatten())
        return total

    return Loop([encoder, context, maps], loss)


def deepcluster(encoder: nn.Module, dim: int) -> Loop:
    classifier, clusters = nn.Linear(dim, PROTOTYPES), torch.randint(PROTOTYPES, (BANK,))
    weights = torch.ones(PROTOTYPES)

    def loss(views: list[Tensor], index: Tensor, labels: Tensor) -> Tensor:
        found = clusters[index]
        entropies = F.cross_entropy(classifier(encoder(views[0])).float(), found, reduction="none")
        return (weights[found] * entropies).mean()

    return Loop([encoder, classifier], loss)


def deepclusterv2(encoder: nn.Module, dim: int) -> Loop:
    net, centroids = nn.Sequential(encoder, mlp(dim, HIDDEN, OUT)), [unit(torch.randn(PROTOTYPES, OUT)) for _ in range(3)]
    clusters, memory, fresh = torch.randint(PROTOTYPES, (3, BANK)), torch.zeros(2, BANK, OUT), list[Tensor]()

    def loss(views: list[Tensor], index: Tensor, labels: Tensor) -> Tensor:
        z = unit(net(torch.cat(views)))
        fresh.extend([index, z.detach()])
        targets = clusters[:, index].repeat(1, 2)
        return torch.stack([F.cross_entropy(times(z, c.T) / 0.1, t) for c, t in zip(centroids, targets, strict=True)]).mean()

    def after() -> None:
        index, z = fresh
        memory[:, index] = z.view(2, -1, OUT)
        fresh.clear()

    return Loop([net], loss, after)


def infomin(encoder: nn.Module, dim: int) -> Loop:
    net, solver = nn.Sequential(encoder, mlp(dim, HIDDEN, OUT, norm=False)), nn.Linear(9 * OUT, OUT)
    patch_head = mlp(dim, HIDDEN, OUT, norm=False)
    slow, queue, place, fresh = frozen(net), unit(torch.randn(QUEUE, OUT)), [0], list[Tensor]()

    def contrast(q: Tensor, k: Tensor) -> Tensor:
        logits = torch.cat([(q * k).sum(dim=1, keepdim=True), times(q, queue.T)], dim=1) / 0.15
        return F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long))

    def loss(views: list[Tensor], index: Tensor, labels: Tensor) -> Tensor:
        q = unit(net(views[0]))
        with torch.no_grad():
            order = torch.randperm(len(q))
            k = unit(slow(views[1][order]))[order.argsort()]
        parts = patch_head(encoder(views[2].flatten(0, 1))).view(len(q), 9, OUT)
        places = torch.rand(len(q), 9).argsort(dim=1)
        puzzle = unit(solver(parts.gather(1, places[:, :, None].expand_as(parts)).flatten(1)))
        fresh.append(k)
        return 0.5 * contrast(q, k) + 0.5 * contrast(puzzle, k)

    def after() -> None:
        move(slow, net, 0.999)
        k = fresh.pop()
        queue[place[0] : place[0] + len(k)] = k
        place[0] = (place[0] + len(k)) % QUEUE

    return Loop([net, patch_head, solver], loss, after)


OLDER: dict[str, Callable[[nn.Module, int], Loop]] = {
    "contrastive": contrastive,
    "cmc": cmc,
    "cpc": cpc,
    "cpcv2": cpc,
    "deepcluster": deepcluster,
    "deepclusterv2": deepclusterv2,
    "infomin": infomin,
}
