"""InvaSpread: Unsupervised embedding learning via invariant and spreading instance feature (Ye et al., 2019, arXiv 1904.03436).

No memory: the images of the batch are the classes. f_i is the normalized feature of image i, f^_i that of its other view:

    P(i|x^_i) = exp(f_i.f^_i / t) / sum over k of exp(f_k.f^_i / t)          equation 2: the other view is image i
    P(i|x_j)  = exp(f_i.f_j / t) / sum over k of exp(f_k.f_j / t)            equation 3: image j, j != i, is not
    J = -sum over i of log P(i|x^_i) - sum over i, j != i of log(1 - P(i|x_j))          equation 6; here the mean over i

form `code` is the released one, over the 2B features x of both views, each in turn the anchor a with its other view a':

    P(k|a) = exp(x_a.x_k / t) / sum over l != a of exp(x_a.x_l / t)          no gradient through x_k and x_l
    J = mean over a of -log P(a'|a) - sum over k != a, a' of log(1 - P(k|a))

Protocol, CIFAR-10, released script: ResNet-18, 128-d, SGD 0.03, times 0.1, 0.05, 0.01 from epochs 120, 160, 200 of 301,
decay 5e-4, batch 128, t 0.1; recipe instdisc.
Should reach, CIFAR-10, ResNet-18, kNN (k = 200): 83.6 (table 1; secondary); STL-10, 5000 images, kNN 74.1 (table 2; secondary).
Switches, and where their rows are printed:
    form                     the departures below
    negatives, positives     the paper's ablations on CIFAR-10, kNN (secondary): all 83.6, hard 83.2, easy 57.5; 37.4 without
                             augmentation (positives: same, with recipe identity)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.base import Method, Setting, Step
from methods.checks import check
from methods.encoders import EncoderConfig
from methods.gather import gathered
from methods.heads import HeadConfig, mlp, out_dim
from methods.losses import full_precision
from methods.telemetry import health

_HEAD = HeadConfig(layers=1, out=128)


@dataclass(frozen=True)
class InvaSpreadConfig:
    """projector: from the encoder's features to f; the paper's is one linear layer. temperature: t.
    form: of the loss, `paper` or `code`.
    positives: `same` puts the view itself in the place of its other view, so that nothing asks for invariance.
    negatives: `hard` and `easy` keep, for each i, the more and the less similar half of the other images in the second sum.
    evaluate: what `features` returns: `h` the encoder's output, `z` the normalized f, which the paper's kNN reads.
    """

    projector: HeadConfig = _HEAD
    temperature: float = 0.1
    form: Literal["paper", "code"] = "paper"
    positives: Literal["augmented", "same"] = "augmented"
    negatives: Literal["all", "hard", "easy"] = "all"
    evaluate: Literal["h", "z"] = "h"

    def __post_init__(self) -> None:
        check(self, positive=["temperature"])


def log_rest(logits: Tensor) -> Tensor:  # N x K -> N x K
    """log(1 - softmax), along the rows, also where a probability is 1 to the last digit.

    Only the largest of a row can be over 1/2: there, 1 - P is what the others have.
    """
    total = logits.logsumexp(dim=1, keepdim=True)
    top = F.one_hot(logits.argmax(dim=1), logits.shape[1]).bool()
    others = logits.masked_fill(top, -torch.inf).logsumexp(dim=1, keepdim=True)
    # The logarithm of the largest is computed apart, and kept out of log1p, whose gradient would not be finite there.
    below = torch.log1p(-(logits - total).masked_fill(top, -1.0).exp())
    return torch.where(top, others - total, below)


def half(similarity: Tensor, allowed: Tensor, which: str) -> Tensor:  # N x K, N x K -> N x K
    """Of each row's allowed ones, equally many in each row, which are in the sum: all, or half of them, rounded up."""
    if which == "all":
        return allowed
    count = (int(allowed[0].sum()) + 1) // 2
    order = similarity.detach() if which == "hard" else -similarity.detach()
    best = order.masked_fill(~allowed, -torch.inf).topk(count, dim=1).indices
    return torch.zeros_like(allowed).scatter(1, best, True)


@full_precision
def paper_form(f: Tensor, other: Tensor, tau: float, negatives: str = "all") -> Tensor:  # B x d, B x d -> scalar
    """Equation 6 divided by B. The features are normalized here."""
    f, other = F.normalize(f, dim=1), F.normalize(other, dim=1)
    invariant = (other @ f.T / tau).log_softmax(dim=1).diagonal()  # B: log P(i|x^_i)
    similarity = f @ f.T / tau  # B x B
    spread = log_rest(similarity).T  # [i, j] is log(1 - P(i|x_j))
    own = torch.eye(len(f), dtype=torch.bool, device=f.device)
    kept = half(similarity, ~own, negatives)
    return -(invariant + spread.masked_fill(~kept, 0.0).sum(dim=1)).mean()


@full_precision
def code_form(f: Tensor, other: Tensor, tau: float, negatives: str = "all") -> Tensor:  # B x d, B x d -> scalar
    """The released code's loss. The features are normalized here."""
    x = F.normalize(torch.cat([f, other]), dim=1)  # 2B x d
    own = torch.eye(len(x), dtype=torch.bool, device=x.device)
    pair = own.roll(len(f), dims=1)  # [a, a']
    logits = (x @ x.detach().T / tau).masked_fill(own, -torch.inf)
    invariant = logits.log_softmax(dim=1)[pair]  # 2B
    kept = half(logits, ~(own | pair), negatives)
    return -(invariant + log_rest(logits).masked_fill(~kept, 0.0).sum(dim=1)).mean()


# NOTE(departs): The paper's equation 6 sums over the batch; ours and the released code take the mean, so that the learning
# rate does not hang on the batch size.
# NOTE(departs): The default, form: paper, is the paper's equations. The released code differs: it takes both views of every
# image as anchors, sums a negative's probability P(k|a) over the candidates k where the paper sums P(i|x_j) over the
# images i it is taken for, leaves the anchor itself out of the denominator, and sends no gradient through the candidates.
# form: code does so.
# NOTE(departs): The paper's x_i is the image itself and x^_i an augmentation of it; the released code and ours augment both.
# NOTE(departs): Views are forwarded one by one; the released code concatenates them, so that a batch norm sees both views at
# once, and splits that batch over its GPUs.
# NOTE(departs): The released code weighs the negatives by a factor (batch-m), which it leaves at 1; we have no such factor.
# NOTE(departs): The released code takes the colour jitter before the grey; recipe instdisc takes it after.
# NOTE(departs): The paper's kNN reads the normalized 128-d f; here `features` is by default what the encoder returns, as
# for every other method, and evaluate: z is the paper's.
class InvaSpread(Method):
    NAME = "invaspread"
    VERSION = 1
    PAPER = "ye2019invaspread arXiv:1904.03436"
    NUM_VIEWS = 2
    RECIPE = "instdisc"
    Config = InvaSpreadConfig

    def __init__(self, config: InvaSpreadConfig, encoder: EncoderConfig, setting: Setting) -> None:
        super().__init__(config, encoder, setting)
        if setting.batch_size == 1:
            raise ValueError("invaspread tells the images of a batch apart: batch_size must be at least 2, not 1")
        if setting.num_views == 1:
            raise ValueError("invaspread needs two views of an image, not 1")
        width = out_dim(self.dim, config.projector)
        self.projector = mlp(self.dim, config.projector)
        if config.evaluate == "z":
            self.dim = width

    def loss(self, views: list[Tensor], index: Tensor, labels: Tensor, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        # View by view, never concatenated: a batch norm must see the statistics of one view at a time.
        z = [gathered(self.project(view)) for view in views]  # 2 of B x d
        other = z[1] if self.config.positives == "augmented" else z[0]
        form = paper_form if self.config.form == "paper" else code_form
        loss = form(z[0], other, self.config.temperature, self.config.negatives)
        return loss, health(step, z[0], z[1])

    def features(self, images: Tensor) -> Tensor:
        return F.normalize(self.project(images), dim=1) if self.config.evaluate == "z" else self.encoder(images)

    def project(self, images: Tensor) -> Tensor:
        return self.projector(self.encoder(images))
