"""CPC v2: Data-efficient image recognition with contrastive predictive coding (Henaff et al., 2019, arXiv 1905.09272).

CPC (methods.cpc, whose equations and code these are) with a larger encoder under layer norm, fewer and larger patches,
predictions in all four directions, and an augmentation of every patch by itself:

    z_(r, c) = f(x_(r, c)),   t_(r, c) = A z_(r, c)                   what is predicted, 64 wide
    c_(r, .) = g(z of the rows <= r)                                  five residual blocks of masked convolutions, 256 wide
    L = -mean over r, c of log softmax over all patches t' of (0.1 t' . W_k c_(r, c))  at t_(r + k, c),   k = 3
    summed over the four directions: down, up, right, left            each with A, g, W of its own

With k = 3 no predicted patch overlaps the row that predicts it: patches of 80 pixels, 36 apart.

Protocol: encoder.norm layer; 6 x 6 patches of 80 of a 260 image, 36 apart; Adam; recipe cpcv2. Linear evaluation of the mean
over the grid of z.
Should reach, ImageNet linear top-1: ResNet-161 71.5, ResNet-50 63.8 (as cited in SimCLR, 2002.05709, table 6).
Switches, whose effects figure 3 adds up one by one, from CPC v1 on:
    encoder (capacity), encoder.norm layer, directions 1 / 2 / 4 (bottom-up, horizontal), grid and overlap (larger patches),
    the recipe's patch_order (colours per patch)
"""

from __future__ import annotations

from dataclasses import dataclass

from methods.cpc import CPC, CPCConfig


@dataclass(frozen=True)
class CPCv2Config(CPCConfig):
    """CPC's fields (see there), with the paper's values."""

    grid: int = 6
    overlap: float = 0.55
    steps: int = 3
    skip: int = 2
    directions: int = 4
    target: int = 64
    scale: float = 0.1


# NOTE(departs): The pseudo-code in the paper shows one direction; that each has weights of its own is our reading.
# NOTE(departs): CPC sums over several steps; this paper's pseudo-code predicts the third row below alone (skip 2, steps 3),
# and so does ours.
# NOTE(departs): The pseudo-code's maps A and W_k have biases, which equation 3 of CPC has not; ours have none.
# NOTE(departs): The pseudo-code's context has no norm; context_norm: layer adds one over the channels of each cell.
# NOTE(departs): Layer norm in the encoder (encoder.norm: layer) is over channels and space of a patch together; it could be
# read as over the channels of each place.
class CPCv2(CPC):
    NAME = "cpcv2"
    VERSION = 1
    PAPER = "henaff2019cpcv2 arXiv:1905.09272"
    RECIPE = "cpcv2"
    Config = CPCv2Config
