"""SimCLR v2: Big self-supervised models are strong semi-supervised learners (Chen et al., 2020, arXiv 2006.10029).

SimCLR with three changes: larger encoders (encoder.width, encoder.sk, resnet152), a deeper head of which fine-tuning keeps
the first layer, and a memory of further negatives.

    z = g(h),  g(h) = W3 ReLU(W2 ReLU(W1 h))                          h = f(v); norms as in the head below
    l(i, j) = -log exp(s(i, j) / t) / (sum over k != i of exp(s(i, k) / t) + sum over the memory m of exp(z_i . m / t))
    L = mean of l over the 2N anchors
    xi <- tau xi + (1 - tau) theta;   g_xi(f_xi(v')) enters the memory, the oldest leave it
    f_task(x) = W_task ReLU(W1 f(x))                                  section 2: what is fine-tuned (finetune_from 1)

Protocol: LARS, lr 0.1 x sqrt(batch), weight decay 1e-4, linear warm-up over 5 % of 800 epochs (quoted from memory) and a
cosine, batch 4096, a memory of 64K at tau 0.999 (secondary); recipe simclr. Distillation of the fine-tuned network is
methods.distillation.
Should reach, ImageNet, ResNet-50 (1x): linear 71.7, fine-tuned with 1 % of the labels 57.9, with 10 % 68.4; with selective
kernels 74.6, 64.5, 72.1 (table 1, as the authors' README prints it).
Switches, and where their rows are printed:
    encoder.width, .sk, depth          table 1
    memory                             section 2: about 1 point for linear evaluation and for 1 % of the labels
    projector.layers, finetune_from    section 4 and its figures on the head, drawn without numbers
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.base import Method, Setting, Step
from methods.checks import check
from methods.encoders import EncoderConfig
from methods.gather import gathered
from methods.heads import HeadConfig, mlp, out_dim
from methods.losses import nt_xent
from methods.memory import KeyQueue
from methods.momentum import copy_into, ema_update, frozen_copy
from methods.simclr import contrast_top1
from methods.telemetry import health

_HEAD = HeadConfig(layers=3, hidden=2048, out=128, norm="batch", final_norm=True)


@dataclass(frozen=True)
class SimCLRv2Config:
    """projector: the head g.
    temperature: t.
    memory: negatives from the moving average of the network as well; queue: how many of them; memory_ema: tau.
    finetune_from: how many layers of the head stay on the encoder when it is fine-tuned; 0 is the encoder alone.
    evaluate_from: the same for `features`, that is for evaluations with a frozen network.
    """

    projector: HeadConfig = _HEAD
    temperature: float = 0.1
    memory: bool = field(default=True, metadata={"governs": {"false": ["queue", "memory_ema"]}})
    queue: int = field(default=65536, metadata={"at_least": "batch_size"})
    memory_ema: float = 0.999
    finetune_from: int = 1
    evaluate_from: int = 0

    def __post_init__(self) -> None:
        check(self, positive=["temperature"], unit=["memory_ema"])
        for name in ("finetune_from", "evaluate_from"):
            layer = getattr(self, name)
            if not 0 <= layer <= self.projector.layers:
                raise ValueError(f"{name} is {layer}, but projector has layers 0 (the encoder) to {self.projector.layers}")


# NOTE(departs): The head's norms are the released code's: batch norm after every linear layer. The paper names none.
# NOTE(departs): The released code's last batch norm of the head has no offset, and its hidden layers are as wide as the
# features; ours has an offset and `projector.hidden`, which is the same for features of 2048.
# NOTE(departs): The memory network is in the paper and not in the released code. The paper does not say which of its outputs
# are kept or how they enter the loss; ours keeps those of the second view, as negatives of both views beside the batch's.
# NOTE(departs): The moving average runs after the optimizer at a constant tau, and the memory starts with random unit
# vectors, as MoCo's does.
# NOTE(departs): The released code adds the means of the two directions, which is twice the mean over 2N anchors; ours is the
# mean, as in SimCLR's paper.
# NOTE(departs): Views pass the encoder one by one, so that batch norms see one view at a time; the released code
# concatenates both views, and its statistics are over both.
class SimCLRv2(Method):
    NAME = "simclrv2"
    VERSION = 1
    PAPER = "chen2020simclrv2 arXiv:2006.10029"
    NUM_VIEWS = 2
    RECIPE = "simclr"
    Config = SimCLRv2Config

    def __init__(self, config: SimCLRv2Config, encoder: EncoderConfig, setting: Setting) -> None:
        super().__init__(config, encoder, setting)
        if setting.batch_size == 1:
            raise ValueError("a batch of one image has no negatives; SimCLR v2 needs a batch_size of at least 2")
        if config.memory and config.queue < setting.batch_size:
            raise ValueError(f"queue is {config.queue}, it must hold at least a batch of {setting.batch_size}")
        self.projector = mlp(self.dim, config.projector)
        width = out_dim(self.dim, config.projector)
        self.target = frozen_copy(self.encoder, self.projector) if config.memory else None
        self.memory = KeyQueue(config.queue, width) if config.memory else None
        if config.evaluate_from > 0:
            self.dim = config.projector.hidden if config.evaluate_from < config.projector.layers else width
        self._fresh: list[Tensor] = []  # keys of this step, not yet in the memory

    def prepare(self, views: list[Tensor]) -> None:
        super().prepare(views)
        if self.target is not None:
            copy_into(self.target, self.encoder, self.projector)

    def loss(self, views: list[Tensor], index: Tensor, labels: Tensor, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        z = torch.stack([gathered(self.project(view)) for view in views])  # 2 x B x d, of all ranks
        loss = nt_xent(z, self.config.temperature, queue=None if self.memory is None else self.memory.keys)
        if self.target is not None:
            with torch.no_grad():
                self._fresh.append(self.target(views[1]))
        log = health(step, z[0], z[1]) | {"contrast_top1": contrast_top1(z)}
        if self.memory is not None:
            log["queue_age"] = self.memory.age(step, z.shape[1])
        return loss, log

    def after_step(self, step: Step) -> None:
        if self.target is None or self.memory is None:
            return
        ema_update(self.target, self.encoder, self.projector, momentum=self.config.memory_ema)
        for keys in self._fresh:
            self.memory.enqueue(F.normalize(keys.to(self.memory.keys.dtype), dim=1))
        self._fresh.clear()

    def head_features(self, images: Tensor, layer: int) -> Tensor:  # B x C x H x W -> B x D
        """What the head's layer `layer` returns, its norm and ReLU included; 0 is the encoder."""
        y = self.encoder(images)
        for module in self._layers(layer):
            y = module(y)
        return y

    def finetune_network(self) -> nn.Sequential:
        """The trained encoder with the head's first `finetune_from` layers on it; a new linear layer belongs on top."""
        return nn.Sequential(self.encoder, *self._layers(self.config.finetune_from))

    def _layers(self, layer: int) -> list[nn.Module]:
        whole = self.config.projector.layers
        if not 0 <= layer <= whole:
            raise ValueError(f"layer is {layer}, but the head has layers 0 (the encoder) to {whole}")
        modules = list(self.projector)
        return modules if layer == whole else modules[: 3 * layer]  # linear, norm, ReLU

    def features(self, images: Tensor) -> Tensor:
        return self.head_features(images, self.config.evaluate_from)

    def project(self, images: Tensor) -> Tensor:
        return self.projector(self.encoder(images))
