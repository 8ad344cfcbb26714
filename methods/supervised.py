"""The same encoder trained with labels, the upper row of a sweep: what data, scale and optimizer allow.

    L = cross-entropy(W f(v) + b, label)

Default protocol: ResNet-50, SGD 0.1 x batch / 256, momentum 0.9, decay 1e-4, 90 epochs, x0.1 every 30; recipe supervised.
Should reach 76.5 on ImageNet with ResNet-50 (MoCo v2, 2003.04297, table 1, row "supervised").
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from methods.base import Method, Setting, Step
from methods.encoders import EncoderConfig
from methods.losses import classification
from methods.telemetry import health


@dataclass(frozen=True)
class SupervisedConfig:
    """label_smoothing: probability spread evenly over all classes."""

    label_smoothing: float = 0.0


class Supervised(Method):
    NAME = "supervised"
    VERSION = 1
    PAPER = "he2016resnet arXiv:1512.03385"
    NUM_VIEWS = 1
    RECIPE = "supervised"
    Config = SupervisedConfig

    def __init__(self, config: SupervisedConfig, encoder: EncoderConfig, setting: Setting) -> None:
        super().__init__(config, encoder, setting)
        if setting.batch_size == 1 and any(isinstance(m, nn.BatchNorm2d) for m in self.encoder.modules()):
            raise ValueError("a batch of one image has no batch statistics: raise batch_size, or take another encoder.norm")
        self.classifier = nn.Linear(self.dim, setting.num_classes)

    def loss(self, views: list[Tensor], index: Tensor, labels: Tensor, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        y = self.features(views[0])  # B x D
        logits = self.classifier(y)  # B x C
        accuracy = (logits.detach().argmax(dim=1) == labels).float().mean()
        loss = classification(logits, labels, self.config.label_smoothing)
        return loss, health(step, y) | {"accuracy": accuracy}
