"""SimCLR: A simple framework for contrastive learning of visual representations (Chen et al., 2020, arXiv 2002.05709).

For N images, two views each:

    h = f(v)      z = g(h)                                            encoder, projection head
    s(i, j) = z_i . z_j / (|z_i| |z_j|)
    l(i, j) = -log exp(s(i, j) / t) / sum over k != i of exp(s(i, k) / t)          equation 1, NT-Xent
    L = 1 / 2N sum over the N pairs of l(i, j) + l(j, i)              2N - 2 negatives for every anchor

With further views (small crops) every view is an anchor, all others of its image are its positives in turn, and all views
of other images its negatives (SwAV, 2006.09882, appendix A.8, equation 7).

h is kept, g is thrown away.

Protocol: ResNet-50, LARS, lr 0.3 x batch / 256, weight decay 1e-6, 10 epochs of linear warm-up and a cosine, batch 4096,
statistics of batch norms over the whole batch; recipe simclr. Linear evaluation of h.
Should reach, ImageNet linear top-1, ResNet-50: 69.3 at 1000 epochs (table 6), 64.5 at 100 (table 1).
Switches, and where their rows are printed:
    projector.layers, .out; evaluate   figure 8 (bars without numbers; section 4.2: non-linear is 3 points over linear, more
                                       than 10 over none, and h more than 10 over z)
    loss, semi_hard, negatives         table 4: NT-Xent 63.9, NT-Logistic 51.6 (semi-hard 57.9), margin 50.9 (57.5); all
                                       with negatives of one view
    normalize, temperature             table 5: t = 0.1 64.4, 0.5 60.7, 1 58.0; inner products, t = 10 57.2, 100 57.0
    batch size, epochs                 table B.1
    further views (small crops)        SwAV, figure 3: 2 x 160 + 4 x 96 70.6 against 2 x 224 68.2 (quoted from
                                       memory)
    predict, stop_gradient             SimSiam (2011.10566), section 6.2, with its own head: 66.5, with a predictor 66.4, with
                                       both 66.0
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.base import Method, Setting, Step
from methods.checks import check
from methods.encoders import EncoderConfig
from methods.gather import gathered
from methods.heads import HeadConfig, mlp, out_dim, predictor_mlp
from methods.losses import full_precision, nt_xent
from methods.telemetry import health

_HEAD = HeadConfig(layers=2, hidden=2048, out=128, norm="batch", final_norm=True)
_PREDICTOR = HeadConfig(layers=2, hidden=512, out=128, norm="batch")


@dataclass(frozen=True)
class SimCLRConfig:
    """projector: the head g; layers 2 is the paper's non-linear one, 1 the linear one, 0 none.
    evaluate: what `features` returns, the encoder's output h or the projection z.
    loss: NT-Xent, or table 2's NT-Logistic and margin triplet, which always take the negatives of the other view.
    temperature: t. normalize: compare cosines; without it inner products, which want a larger t.
    negatives: of NT-Xent, other images in `both` views, or only in the `other` view, as in table 4.
    semi_hard: of each anchor's negatives keep the nearest that is farther than the positive (and, for `margin`, within it).
    margin: of the triplet loss.
    predict: put a head q on the anchors, which then look for projections z; predictor: that head, SimSiam's by default.
    stop_gradient: learn through the anchors alone.
    """

    projector: HeadConfig = _HEAD
    evaluate: Literal["h", "z"] = "h"
    loss: Literal["nt_xent", "nt_logistic", "margin"] = field(
        default="nt_xent",
        metadata={
            "governs": {
                "nt_xent": ["semi_hard", "margin"],
                "nt_logistic": ["negatives", "margin"],
                "margin": ["negatives", "temperature"],
            }
        },
    )
    temperature: float = 0.1
    normalize: bool = True
    negatives: Literal["both", "other"] = "both"
    semi_hard: bool = False
    margin: float = 0.4
    predict: bool = field(default=False, metadata={"governs": {"false": ["predictor"]}})
    predictor: HeadConfig = field(default=_PREDICTOR, metadata={"matches": {"out": "projector"}})
    stop_gradient: bool = False

    def __post_init__(self) -> None:
        check(self, positive=["temperature"], least={"margin": 0})


# NOTE(departs): The head's norms are the released code's: batch norm after both linear layers. The paper's g is two linear
# layers with a ReLU between them and names no norm (projector.norm: none).
# NOTE(departs): The released code's last batch norm of the head has no offset; ours is the usual one with scale and offset.
# NOTE(departs): The released code makes the head's hidden layer as wide as the features, ours is `projector.hidden` wide:
# 2048, which is the same for a ResNet-50 of width 1 only.
# NOTE(departs): The released code adds the means of the two directions, which is twice the paper's 1 / 2N; ours is the
# paper's. LARS scales it out of the layers it adapts, up to weight decay.
# NOTE(departs): NT-Logistic and the margin loss are printed for one triplet and are not in the released code. Ours average
# over all triplets of an anchor and its negatives; with semi_hard an anchor without such a negative has no negative term.
# The margin of 0.4 is one of the four that appendix B.10 tries; which was the best is not printed.
# NOTE(departs): Views pass the encoder one by one, so that batch norms see one view at a time; the released code
# concatenates both views, and its statistics are over both.
class SimCLR(Method):
    NAME = "simclr"
    VERSION = 1
    PAPER = "chen2020simclr arXiv:2002.05709"
    NUM_VIEWS = 2
    RECIPE = "simclr"
    MULTI_CROP = True
    Config = SimCLRConfig

    def __init__(self, config: SimCLRConfig, encoder: EncoderConfig, setting: Setting) -> None:
        super().__init__(config, encoder, setting)
        if setting.batch_size == 1:
            raise ValueError("a batch of one image has no negatives; SimCLR needs a batch_size of at least 2")
        if setting.num_views == 1:
            raise ValueError("SimCLR compares two views of an image, but there is only one")
        self.projector = mlp(self.dim, config.projector)
        width = out_dim(self.dim, config.projector)
        self.predictor = predictor_mlp(width, config.predictor) if config.predict else None
        if config.evaluate == "z":
            self.dim = width

    def loss(self, views: list[Tensor], index: Tensor, labels: Tensor, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        local = [self.project(view) for view in views]  # V of B/N x d; view by view for the batch norms' sake
        z = torch.stack([gathered(z_v) for z_v in local])  # V x B x d, of all ranks
        q = z if self.predictor is None else torch.stack([gathered(self.predictor(z_v)) for z_v in local])
        keys, c = z.detach() if self.config.stop_gradient else z, self.config
        if c.loss == "nt_xent":
            loss = nt_xent(q, c.temperature, normalize=c.normalize, both=c.negatives == "both", keys=keys)
        else:
            loss = over_triplets(q, keys, c)
        return loss, health(step, z[0], z[1]) | {"contrast_top1": contrast_top1(z, c.normalize)}

    def features(self, images: Tensor) -> Tensor:
        return self.project(images) if self.config.evaluate == "z" else self.encoder(images)

    def project(self, images: Tensor) -> Tensor:
        return self.projector(self.encoder(images))

    def outputs(self, images: Tensor) -> Tensor:
        z = self.project(images)
        return z if self.predictor is None else self.predictor(z)


@torch.no_grad()
@full_precision
def contrast_top1(z: Tensor, normalize: bool = True) -> Tensor:  # V x B x d -> scalar
    """How many of the first views find their image among all images' second views; table 5's "contrastive accuracy"."""
    first, second = F.normalize(z[:2], dim=2) if normalize else z[:2]
    found = (first @ second.T).argmax(dim=1)
    return (found == torch.arange(len(found), device=z.device)).to(z.dtype).mean()


@full_precision
def over_triplets(q: Tensor, z: Tensor, config: SimCLRConfig) -> Tensor:  # V x B x d, V x B x d -> scalar
    """NT-Logistic or the margin loss, the mean over ordered pairs of two views."""
    if config.normalize:
        q, z = F.normalize(q, dim=2), F.normalize(z, dim=2)
    pairs = [(v, i) for v in range(len(q)) for i in range(len(z)) if v != i]
    total = z.new_zeros(())
    for v, i in pairs:
        scores = q[v] @ z[i].T
        if config.loss == "nt_logistic":
            total = total + nt_logistic(scores, config.temperature, config.semi_hard)
        else:
            total = total + margin_triplet(scores, config.margin, config.semi_hard)
    return total / len(pairs)


def nt_logistic(scores: Tensor, tau: float, semi_hard: bool) -> Tensor:  # B x B, positives on the diagonal -> scalar
    """Table 2: -log sigmoid(s+ / t) - log sigmoid(-s- / t)."""
    negative = (_weights(scores, semi_hard) * F.softplus(scores / tau)).sum(dim=1)
    return (F.softplus(-scores.diagonal() / tau) + negative).mean()


def margin_triplet(scores: Tensor, margin: float, semi_hard: bool) -> Tensor:  # B x B, positives on the diagonal -> scalar
    """Table 2: max(s- - s+ + m, 0)."""
    excess = F.relu(scores - scores.diagonal()[:, None] + margin)
    return (_weights(scores, semi_hard) * excess).sum(dim=1).mean()


@torch.no_grad()
def _weights(scores: Tensor, semi_hard: bool) -> Tensor:  # B x B -> B x B
    """Of each image as a negative of each anchor: equal ones that sum to one, or the one semi-hard negative's, if any."""
    positive = scores.diagonal()[:, None]
    if not semi_hard:
        others = 1.0 - torch.eye(len(scores), dtype=scores.dtype, device=scores.device)
        return others / max(1, len(scores) - 1)
    eligible = scores < positive  # the margin's own bound is in its loss: beyond it, there is nothing to pay
    nearest = scores.masked_fill(~eligible, -torch.inf).argmax(dim=1, keepdim=True)
    return torch.zeros_like(scores).scatter_(1, nearest, 1.0) * eligible
