"""SwAV: Unsupervised Learning of Visual Features by Contrasting Cluster Assignments (Caron et al., 2020, arXiv 2006.09882).

Each view predicts the code that another view of the same image gets. For unit vectors z_v = g(f(v)) and prototypes c_k:

    p_v = softmax(z_v . c_k / t over k)                               the prediction, from any view
    Q = argmax Tr(Q^T C^T Z) + eps H(Q), equal use of all prototypes  the code, equation 3 (methods.sinkhorn)
    l(v, w) = -sum over k of q_w,k log p_v,k                          equation 2; no gradient through q
    L = mean over the 2 full-size views w, over all other views v, of l(v, w)     equation 6, the multi-crop form
    c_k <- c_k / |c_k|                                                after each step
    with a queue, Q is solved over the last projections too, and the rows of the batch are kept

Protocol (paper, appendix A): ResNet-50, LARS 4.8 to 0.0048 by a cosine after 10 epochs of warm-up from 0.3, weight decay
1e-6, batch 4096, 100-800 epochs; recipe `swav`, 2 x 224 (scale 0.14-1) + 6 x 96 (0.05-0.14). At batch 256: LARS 0.6 to
0.0006, no warm-up, queue 3840 from epoch 15, prototypes frozen for 5005 steps.

Should reach, ImageNet linear top-1, ResNet-50 (authors' README, model zoo): 75.3 at 800 epochs, 72.1 at 100 with 2 x 224 +
6 x 96; 70.1 at 400 with 2 x 224; 72.7 at 200 with batch 256.
Switches, and where their rows are printed:
    the number and size of crops       figure 3 left (the views' business): 2 x 224 70.1, 2 x 160 + 4 x 96 74.1 (from memory)
    queue, queue_epoch, batch          table 3: batch 256, 200 epochs 72.0; README 72.7 and 74.3 at 400
    stop_gradient: false               SimSiam (2011.10566), section 6.2: diverges, where SwAV has 66.5 (100 epochs)
    predict                            SimSiam, section 6.2: 65.2
    codes: hard                        section 3.1: discrete codes are said to do worse with mini-batches; no number here
    sinkhorn_iterations: 0             no equal use of the prototypes, the trivial solution that section 3.1 warns of
    temperature, epsilon, prototypes, freeze_steps    the released code's arguments

A loss that stays at log K with code_entropy at 1 is SwAV's own collapse: all images alike, all codes uniform. Small data and
short runs meet it; against it the authors' README lowers epsilon (0.03), freezes prototypes for longer or takes hard codes.
"""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.base import Method, Setting, Step
from methods.checks import check
from methods.encoders import EncoderConfig
from methods.gather import rank, world_size
from methods.heads import HeadConfig, mlp, out_dim, predictor_mlp
from methods.losses import full_precision
from methods.memory import KeyQueue
from methods.sinkhorn import sinkhorn
from methods.telemetry import health, relative_entropy

_PROJECTOR = HeadConfig(layers=2, hidden=2048, out=128, norm="batch")
_PREDICTOR = HeadConfig(layers=2, hidden=512, out=128, norm="batch")


@dataclass(frozen=True)
class SwAVConfig:
    """projector: the head g. prototypes: K, how many. temperature: t, of the predictions.
    epsilon, sinkhorn_iterations: of the codes; 0 iterations leave softmax(z . c / epsilon), which balances nothing.
    codes: `soft` as the paper; `hard` puts each code's whole weight on its largest entry.
    stop_gradient: false lets the gradient through the codes too, Sinkhorn's iterations included.
    queue: projections of past batches that codes are computed with, of each of the two full-size views; 0 is none.
    queue_epoch: the epoch, from 0, from which on the queue is used; it must have been filled by then.
    freeze_steps: steps from the start in which the prototypes do not move: the paper's first epoch at batch 4096.
    predict, predictor: SimSiam's variant: predictions come from a head on z, codes from z itself.
    """

    projector: HeadConfig = _PROJECTOR
    prototypes: int = 3000
    temperature: float = 0.1
    epsilon: float = 0.05
    sinkhorn_iterations: int = 3
    codes: Literal["soft", "hard"] = "soft"
    stop_gradient: bool = field(default=True, metadata={"needs": {"false": {"codes": "soft"}}})
    queue: int = field(default=0, metadata={"governs": {"0": ["queue_epoch"]}, "at_least": "batch_size"})
    queue_epoch: int = 15
    freeze_steps: int = 313
    predict: bool = field(default=False, metadata={"governs": {"false": ["predictor"]}})
    predictor: HeadConfig = field(default=_PREDICTOR, metadata={"matches": {"out": "projector"}})

    def __post_init__(self) -> None:
        check(
            self,
            positive=["temperature", "epsilon"],
            least={"sinkhorn_iterations": 0, "queue": 0, "freeze_steps": 0, "prototypes": 2},
        )
        if self.queue and self.queue_epoch < 1:
            raise ValueError(f"queue_epoch must be at least 1, not {self.queue_epoch}; the queue fills in the epochs before")
        if not self.stop_gradient and self.codes == "hard":
            raise ValueError("stop_gradient: false needs codes: soft; hard codes have no gradient")


@full_precision
def prototype_scores(z: Tensor, prototypes: Tensor) -> Tensor:  # ... x d, K x d -> ... x K
    """Cosines, for prototypes that are unit vectors."""
    return F.normalize(z, dim=-1) @ prototypes.T


@full_precision
def swapped_prediction(scores: Tensor, codes: Tensor, temperature: float) -> Tensor:  # V x B x K, C x B x K -> scalar
    """Cross-entropy of every view's prediction with the codes of the first C views, never with its own."""
    log_p = F.log_softmax(scores / temperature, dim=2)
    others = log_p.sum(dim=0) - log_p[: len(codes)]  # C x B x K
    return -(codes * others).sum(dim=2).mean() / (len(scores) - 1)


# NOTE(departs): The paper's equation 6 sums over the pairs of views and the batch; the released code, followed here, takes
# means, so that the loss does not grow with the number of crops.
# NOTE(departs): The queue is filled from the first step on and used from queue_epoch on. The released code begins to fill
# it at that epoch and uses it once it is full, queue / batch steps later.
# NOTE(departs): The released code rounds the queue's length down to a multiple of the batch; here it has any length of at
# least a batch.
# NOTE(departs): The released code's Sinkhorn works on exp(scores / epsilon) itself, unless told otherwise; here on
# logarithms, which cannot overflow. The codes are the same up to rounding.
# NOTE(departs): The released multi-node runs synchronize batch norms within groups of eight GPUs (apex); here over the
# whole batch, as its single-node runs do.
# NOTE(departs): The projector's hidden layer has no bias before its batch norm, which would subtract it; the released
# code's has one.
# NOTE(departs): Prototypes are normalized after each step rather than before the next one, which is the same for training;
# a checkpoint holds them normalized.
# NOTE(departs): For its rows on SwAV, SimSiam made the prototypes' normalization a part of the gradient, with results that it
# calls similar; here they are normalized outside it, as in SwAV.
# NOTE(departs): SimSiam's text does not say which predictor it put on SwAV; ours has one hidden layer of 512 with batch
# norm, and codes are computed without it.
class SwAV(Method):
    NAME = "swav"
    VERSION = 1
    PAPER = "caron2020swav arXiv:2006.09882"
    NUM_VIEWS = 2
    RECIPE = "swav"
    MULTI_CROP = True
    Config = SwAVConfig

    def __init__(self, config: SwAVConfig, encoder: EncoderConfig, setting: Setting) -> None:
        super().__init__(config, encoder, setting)
        _check(config, setting)
        width = out_dim(self.dim, config.projector)
        self.projector = mlp(self.dim, config.projector)
        self.predictor = predictor_mlp(width, config.predictor) if config.predict else nn.Identity()
        self.prototypes = nn.Parameter(F.normalize(torch.empty(config.prototypes, width).uniform_(-1.0, 1.0), dim=1))
        # A row holds the projections of both full-size views of an image.
        self.queue = KeyQueue(config.queue, self.NUM_VIEWS * width) if config.queue else None
        self._fresh: list[Tensor] = []  # rows of this step, not yet queued

    def loss(self, views: list[Tensor], index: Tensor, labels: Tensor, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        z = project_crops(self.encoder, self.projector, views)  # V x B x d
        scores = prototype_scores(z, self.prototypes)  # V x B x K
        codes = self._codes(scores[: self.NUM_VIEWS], step)  # 2 x B x K
        if self.config.predict:
            p = self.predictor(z.flatten(0, 1)).unflatten(0, z.shape[:2])
            scores = prototype_scores(p, self.prototypes)
        loss = swapped_prediction(scores, codes, self.config.temperature)
        if self.queue is not None:
            unit = F.normalize(z[: self.NUM_VIEWS].detach().to(scores.dtype), dim=2)
            self._fresh = [torch.cat(list(unit), dim=1)]  # B x 2d
        prediction = torch.softmax(scores[0].detach() / self.config.temperature, dim=1)
        age = {} if self.queue is None else {"queue_age": self.queue.age(step, z.shape[1] * world_size())}
        return loss, {
            **health(step, z[0], z[1]),
            **age,
            # Both 1 at most: a code spread over all prototypes; and all prototypes predicted equally often.
            "code_entropy": relative_entropy(codes[0].detach()).mean(),
            "prototype_use": relative_entropy(prediction.mean(dim=0)),
        }

    def _codes(self, scores: Tensor, step: Step) -> Tensor:  # 2 x B x K -> 2 x B x K
        """Each view's codes are solved for by themselves, together with its rows in the queue."""
        batch = scores.shape[1]
        with torch.no_grad() if self.config.stop_gradient else contextlib.nullcontext():
            if self.queue is not None and step.epoch >= self.config.queue_epoch:
                # All ranks hold the whole queue, and Sinkhorn sums over ranks: each brings its part.
                kept = self.queue.keys[rank() :: world_size()].unflatten(1, (self.NUM_VIEWS, -1))
                scores = torch.cat([prototype_scores(kept.transpose(0, 1), self.prototypes), scores], dim=1)
            eps, iterations = self.config.epsilon, self.config.sinkhorn_iterations
            q = torch.stack([sinkhorn(rows, eps, iterations)[-batch:] for rows in scores])
            if self.config.codes == "hard":
                q = F.one_hot(q.argmax(dim=2), q.shape[2]).to(q.dtype)
            return q

    def after_backward(self, step: Step) -> dict[str, Tensor]:
        if step.step < self.config.freeze_steps:
            self.prototypes.grad = None
        return {}

    @torch.no_grad()
    def after_step(self, step: Step) -> None:
        self.prototypes.copy_(F.normalize(self.prototypes, dim=1))
        for rows in self._fresh:
            if self.queue is not None:
                self.queue.enqueue(rows)
        self._fresh.clear()

    def project(self, images: Tensor) -> Tensor:
        return self.projector(self.encoder(images))

    def outputs(self, images: Tensor) -> Tensor:
        return self.predictor(self.project(images))


def project_crops(encoder: nn.Module, projector: nn.Module, views: list[Tensor]) -> Tensor:  # V of B x C x H x W -> V x B x d
    """Crops of one size go through the encoder together, all crops through the head together.

    So the released code does, and a batch norm's statistics are those of all crops of one size, in the head of all crops.
    An image's crops lie side by side, so that where statistics are of parts of the batch, a part holds whole images.
    """
    y = []
    for _, same_size in itertools.groupby(views, key=lambda view: view.shape[-2:]):
        crops = torch.stack(list(same_size), dim=1)  # B x V' x C x H x W
        y.append(encoder(crops.flatten(0, 1)).unflatten(0, crops.shape[:2]).transpose(0, 1))  # V' x B x D
    return projector(torch.cat(y).flatten(0, 1)).unflatten(0, (len(views), -1))


def _check(config: SwAVConfig, setting: Setting) -> None:
    """What could be built and not trained."""
    batch, images, queue = setting.batch_size, setting.num_images, config.queue
    if setting.num_views and setting.num_views < SwAV.NUM_VIEWS:
        raise ValueError(f"swav swaps predictions between at least {SwAV.NUM_VIEWS} views, not {setting.num_views}")
    if batch == 1:
        raise ValueError("swav shares a batch out over prototypes and cannot do so with a batch of one")
    if batch and 0 < queue < batch:
        raise ValueError(f"queue is {queue}, but must hold at least one batch of {batch}; 0 is no queue")
    if batch and config.prototypes > batch + queue:
        raise ValueError(
            f"prototypes is {config.prototypes}, but a batch of {batch} and a queue of {queue} have only {batch + queue} "
            "samples to share out over them; raise queue or lower prototypes"
        )
    seen = images // batch * batch * config.queue_epoch if batch and images else queue
    if queue > seen:
        raise ValueError(f"queue is {queue}, but only {seen} images are seen before epoch {config.queue_epoch}; lower queue")
