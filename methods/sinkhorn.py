"""Sinkhorn-Knopp: a batch shared out evenly over prototypes (SwAV, 2006.09882; DINO's row "SK", 2104.14294).

SwAV's equation 3: of all codes Q that use every prototype equally, the one that agrees most with the scores,

    max over Q of  Tr(Q^T C^T Z) + eps H(Q)        Q* = Diag(u) exp(scores / eps) Diag(v)

u and v are found by normalizing in turn: every prototype to the same total, then every sample to a total of one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from methods.gather import gathered
from methods.losses import full_precision


@full_precision
def sinkhorn(scores: Tensor, eps: float, iterations: int) -> Tensor:  # B/N x K -> B/N x K
    """The codes of this rank's rows; the prototypes' totals are over the rows of all ranks, which may hold any number.

    Each row sums to one. After enough iterations each column sums to B / K; a few, as the papers take, come close.
    iterations: 0 balances nothing, the codes are softmax(scores / eps). Gradients pass: call it under `no_grad`, or detach
    the scores, for codes that are constants.

    In logarithms: exp(scores / eps) overflows float32 at scores of 89 eps, and a prototype far from all samples would
    be divided by zero.
    """
    if eps <= 0.0:
        raise ValueError(f"eps must be positive, not {eps}")
    log_q = scores / eps
    for _ in range(iterations):
        # log of each prototype's total; the constant 1 / K of the papers cancels in the next line.
        ours = torch.logsumexp(log_q, dim=0, keepdim=True)  # 1 x K
        log_q = log_q - torch.logsumexp(gathered(ours), dim=0)
        log_q = torch.log_softmax(log_q, dim=1)
    return torch.softmax(log_q, dim=1)
