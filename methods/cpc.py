"""CPC: Representation learning with contrastive predictive coding, on images (van den Oord et al., 2018, arXiv 1807.03748).

An image is a grid of overlapping patches x_(r, c), G x G of them. From the rows above, predict those further down:

    z_(r, c) = f(x_(r, c))                                            encoder, patch by patch
    c_(r, .) = g(z of the rows <= r)                                  autoregressive context, causal masked convolutions
    f_k(z', c) = exp(z' . W_k c)                                      equation 3, one W_k for each step k
    L_k = -mean over r, c of log f_k(z_(r + k, c), c_(r, c)) / sum over z' of f_k(z', c_(r, c))        equation 4
    L = sum over k

z' runs over all patches of all images of the batch, those of the same image included.

Protocol: ResNet-101 v2 without batch norm, third stage, mean over space; 7 x 7 patches of 64 of a 256 image, 32 apart; Adam,
lr 2e-4, batch 16 on each of 32 GPUs; recipe cpc. Linear evaluation of the mean over the grid of z.
Should reach, ImageNet linear top-1 with ResNet-101 v2: 48.7 (table 3); top-5 73.6 (table 4).
Switches, and where their rows are printed (the paper ablates steps and negatives for audio only, in table 2):
    steps                              section 3.2: "up to five rows"
    skip, target, scale, directions, context_norm, grid, overlap: see methods.cpcv2, whose ablations they are
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.base import Method, Setting, Step
from methods.checks import check
from methods.encoders import EncoderConfig
from methods.gather import gathered, rank
from methods.losses import full_precision
from methods.telemetry import health


@dataclass(frozen=True)
class CPCConfig:
    """grid: G; the views hold grid x grid patches, row by row. overlap: of neighbouring patches, as a fraction of their
        side; `features` cuts whole images so (the views are cut by the recipe).
    steps: k = skip + 1 .. steps are predicted. skip: steps left out, whose patches overlap those of the context.
    directions: 1 predicts downwards; 2 upwards too; 3 and 4 to the right and to the left. Each has a network of its own.
    context_blocks, context_width: of the masked convolutions. context_norm: `layer` is over the channels of a cell.
    target: width of a linear map of z that is predicted in its place; 0 is z itself.
    scale: multiplies the predictions.
    """

    grid: int = 7
    overlap: float = 0.5
    steps: int = 5
    skip: int = 0
    directions: int = 1
    context_blocks: int = 5
    context_width: int = 256
    context_norm: Literal["none", "layer"] = "none"
    target: int = 0
    scale: float = 1.0

    def __post_init__(self) -> None:
        check(self, below_one=["overlap"], least={"target": 0, "context_blocks": 1, "context_width": 1})
        if self.grid < 2:
            raise ValueError(f"grid is {self.grid}, it takes at least 2 rows to predict one from another")
        if not 1 <= self.steps < self.grid:
            raise ValueError(f"steps is {self.steps}, but a grid of {self.grid} rows allows 1 to {self.grid - 1}")
        if not 0 <= self.skip < self.steps:
            raise ValueError(f"skip is {self.skip}, but of {self.steps} steps at least one must be predicted")
        if self.directions not in (1, 2, 3, 4):
            raise ValueError(f"directions must be 1, 2, 3 or 4, not {self.directions}")


# NOTE(departs): We know of no released code of the image model. The context is the masked convolutional network of CPC v2's
# pseudo-code, five residual blocks; the first paper says no more than "a PixelCNN-style autoregressive model".
# NOTE(departs): Negatives are all other patches of the batch of all ranks; the paper does not say whether a GPU's 16 images
# or all 512 were contrasted.
# NOTE(departs): The encoder's features are those after its last stage; the paper takes those after the third.
# NOTE(departs): The paper's encoder has no batch norm, ours has what encoder.norm says. With `batch` the patches of an image
# share statistics, through which rows that are to be predicted reach the context; the paper's is `none`.
# NOTE(departs): For evaluation the image is cut into the same grid of patches, at the size it is evaluated at, and the mean
# of their features is taken.
class CPC(Method):
    NAME = "cpc"
    VERSION = 1
    PAPER = "oord2018cpc arXiv:1807.03748"
    NUM_VIEWS = 1
    RECIPE = "cpc"
    PATCHES = True
    Config = CPCConfig

    def __init__(self, config: CPCConfig, encoder: EncoderConfig, setting: Setting) -> None:
        super().__init__(config, encoder, setting)
        self.heads = nn.ModuleList(Predictor(self.dim, config) for _ in range(config.directions))

    def loss(self, views: list[Tensor], index: Tensor, labels: Tensor, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        z = self.latents(views[0])  # B x D x G x G
        total, right = z.new_zeros(()), []
        for head, turned in zip(self.heads, turns(z)[: len(self.heads)], strict=True):
            targets, predictions = head(turned)
            everything = gathered(targets).flatten(0, 2)  # B G G x d, every patch of all ranks
            for k, prediction in enumerate(predictions, start=self.config.skip + 1):
                scores = patch_scores(self.config.scale * prediction.flatten(0, 2), everything)
                answer = positions(len(z), self.config.grid, k, z.device)
                total = total + F.cross_entropy(scores, answer)
                right.append((scores.detach().argmax(dim=1) == answer).float().mean())
        y = z.detach().permute(0, 2, 3, 1).flatten(0, 2)
        return total, health(step, y) | {"patch_top1": torch.stack(right).mean()}

    def latents(self, patches: Tensor) -> Tensor:  # B x P x C x h x w -> B x D x G x G
        grid = self.config.grid
        if patches.ndim != 5 or patches.shape[1] != grid**2:
            found = f"{patches.shape[1]} patches" if patches.ndim == 5 else "no patches"
            raise ValueError(f"grid {grid} needs views of {grid**2} patches, but these have {found}; see the view's patch_grid")
        z = self.encoder(patches.flatten(0, 1))
        return z.view(len(patches), grid, grid, -1).permute(0, 3, 1, 2)

    def outputs(self, images: Tensor) -> Tensor:  # B x P x C x h x w -> B x G x G x d
        z = self.latents(images)
        return torch.stack([head(turned)[0] for head, turned in zip(self.heads, turns(z)[: len(self.heads)], strict=True)])

    def features(self, images: Tensor) -> Tensor:
        patches = cut(images, self.config.grid, self.config.overlap)
        return self.encoder(patches.flatten(0, 1)).view(len(images), -1, self.dim).mean(dim=1)


def turns(z: Tensor) -> list[Tensor]:  # B x D x G x G
    """The grid, turned so that the first rows are its top, its bottom, its left, its right."""
    return [z, z.flip(2), z.transpose(2, 3), z.transpose(2, 3).flip(2)]


def positions(images: int, grid: int, k: int, device: torch.device) -> Tensor:
    """Where, among all patches of all ranks, is the one k rows below each of the first grid - k rows of this rank's images."""
    first = rank() * images * grid**2
    return (first + torch.arange(images * grid**2, device=device)).view(images, grid, grid)[:, k:].flatten()


@full_precision
def patch_scores(wanted: Tensor, patches: Tensor) -> Tensor:  # n x d, m x d -> n x m
    """log f_k of equation 3, for each prediction with each patch; their cross-entropy is equation 4."""
    return wanted @ patches.T


class Predictor(nn.Module):
    """What one direction needs: the context g, the maps W_k, and what of z they predict."""

    def __init__(self, dim: int, config: CPCConfig) -> None:
        super().__init__()
        blocks = [CausalBlock(dim, config.context_width, config.context_norm) for _ in range(config.context_blocks)]
        self.context = nn.Sequential(*blocks, nn.ReLU())
        self.target = nn.Conv2d(dim, config.target, 1, bias=False) if config.target else nn.Identity()
        self.maps = nn.ModuleList(nn.Conv2d(dim, config.target or dim, 1, bias=False) for _ in range(config.skip, config.steps))
        self.skip = config.skip

    def forward(self, z: Tensor) -> tuple[Tensor, list[Tensor]]:
        """B x D x G x G -> what is predicted, B x G x G x d, and for each step k the predictions for its rows k .. G - 1."""
        context = self.context(z)
        predictions = [w(context[:, :, :-k]) for k, w in enumerate(self.maps, start=self.skip + 1)]
        return self.target(z).permute(0, 2, 3, 1), [p.permute(0, 2, 3, 1) for p in predictions]


class CausalBlock(nn.Module):
    """x + (1x1, ReLU, 1x3, 2x1, ReLU, 1x1)(x). A cell sees its row and the one above, and their neighbours: nothing below."""

    def __init__(self, dim: int, width: int, norm: str) -> None:
        super().__init__()
        self.norm = CellNorm(dim) if norm == "layer" else nn.Identity()
        self.narrow = nn.Conv2d(dim, width, 1)
        self.across = nn.Conv2d(width, width, (1, 3), padding=(0, 1))
        self.down = nn.Conv2d(width, width, (2, 1))
        self.widen = nn.Conv2d(width, dim, 1)

    def forward(self, x: Tensor) -> Tensor:  # B x D x G x G
        y = self.across(F.relu(self.narrow(self.norm(x))))
        y = self.down(F.pad(y, (0, 0, 1, 0)))  # an empty row above the first
        return x + self.widen(F.relu(y))


class CellNorm(nn.LayerNorm):
    """Layer norm over the channels of each cell; over space too it would tell the context of the rows below."""

    def forward(self, x: Tensor) -> Tensor:  # B x D x G x G
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def cut(images: Tensor, grid: int, overlap: float) -> Tensor:  # B x C x H x W -> B x P x C x p x p
    """Square images as grid x grid patches, row by row, that overlap by the fraction `overlap` and reach from edge to edge."""
    side = min(images.shape[-2:])
    patch = int(side / (1 + (grid - 1) * (1 - overlap)) + 1e-6)
    stride = (side - patch) // (grid - 1)
    if patch < 1 or stride < 1:
        raise ValueError(f"images of {side} pixels are too small for a grid of {grid} x {grid} patches")
    windows = images.unfold(2, patch, stride).unfold(3, patch, stride)[:, :, :grid, :grid]  # B x C x G x G x p x p
    return windows.permute(0, 2, 3, 1, 4, 5).flatten(1, 2)
