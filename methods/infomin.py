"""InfoMin: What makes for good views for contrastive learning? (Tian et al., 2020, arXiv 2005.10243).

MoCo v2 (methods/moco.py) with views that share less: the recipe "infomin" adds RandAugment to SimCLR's distortion, and a
third view, nine shuffled patches of the image (PIRL's Jigsaw, 1912.01991), asks for the same key:

    q = g(f(v1))      k = g(f(v2)) of the moving network                both normalized
    q_J = h([p(f(patch_s(1))), ..., p(f(patch_s(9)))])                  s a random order; p per patch, h of all nine together
    L = (1 - b) L_NCE(q, k) + b L_NCE(q_J, k)                           against one queue; b = 0.5
    I(v1; v2) >= log(1 + K) - L_NCE                                     logged as mutual_information, in nats

The paper sweeps the strength of the views and draws accuracy over mutual_information: accuracy rises as the shared
information falls, until what the task needs is lost too.

Protocol (released code): ResNet-50, head 2048 -> 2048 -> 128, K = 65536, m = 0.999, t = 0.15; SGD 0.03, momentum 0.9,
weight decay 1e-4, batch 256 on 8 GPUs (encoder.bn_splits: 8), cosine to a thousandth of the rate.
Should reach, ImageNet linear top-1: 67.4 at 100 epochs, 70.1 at 200, 73.0 at 800 (authors' README).
Switches: those of MoCo v2, and
    jigsaw, jigsaw_weight                      the released preset; no row without the branch was found
    recipe                                     MoCo v2's in its place is that paper's row: 67.5 at 200 epochs
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor, nn

from methods import draws
from methods.base import Setting, Step
from methods.checks import check
from methods.encoders import EncoderConfig
from methods.gather import own_rows, world_size
from methods.heads import HeadConfig, mlp, out_dim
from methods.moco import MLP, MoCoV1, MoCoV2Config
from methods.norms import data_dependent_init

_PATCHES = 9


@dataclass(frozen=True)
class InfoMinConfig(MoCoV2Config):
    """The fields of MoCo v2, and
    jigsaw: the third view and its branch. jigsaw_weight: b.
    patch_head: p, of one patch; h is a linear layer from nine of its outputs to the head's width.
    """

    temperature: float = 0.15
    jigsaw: bool = field(
        default=True,
        metadata={"adds": {"true": ["jigsaw"]}, "governs": {"false": ["jigsaw_weight", "patch_head"]}},
    )
    jigsaw_weight: float = 0.5
    patch_head: HeadConfig = MLP

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self, unit=["jigsaw_weight"])
        if self.symmetric:
            raise ValueError("symmetric must be false: InfoMin's loss goes one way; method: mocov2 has the symmetric one")


# NOTE(departs): The released code draws the order of the patches from the global random state; here it is a function of the
# random seed and the step.
# NOTE(departs): The released code shuffles keys among the GPUs of one machine; here among the whole batch.
# NOTE(departs): The residual blocks of the released code do not start as the identity; encoder.zero_init, true by default,
# must be set to false for the same.
# NOTE(departs): The hidden layers of head and patch_head are 2048 wide with every encoder, as with ResNet-50; the released
# code takes the width of the encoder's features.
class InfoMin(MoCoV1):
    NAME = "infomin"
    PAPER = "tian2020infomin arXiv:2005.10243"
    RECIPE = "infomin"
    Config = InfoMinConfig

    def __init__(self, config: InfoMinConfig, encoder: EncoderConfig, setting: Setting) -> None:
        super().__init__(config, encoder, setting)
        if config.jigsaw and 0 < setting.num_views < 3:
            raise ValueError(f"jigsaw: true needs a third view of {_PATCHES} patches, but there are {setting.num_views} views")
        self.patch_head, self.jigsaw = None, None
        if config.jigsaw:
            self.patch_head = mlp(self.dim, config.patch_head)
            width = out_dim(self.dim, config.head)
            self.jigsaw = nn.Linear(_PATCHES * out_dim(self.dim, config.patch_head), width)

    def prepare(self, views: list[Tensor]) -> None:
        super().prepare(views)
        if self.patch_head is not None:
            with torch.no_grad(), data_dependent_init(self.patch_head) as wanted:
                if wanted:
                    self.patch_head(self.encoder(views[2].flatten(0, 1)))

    def loss(self, views: list[Tensor], index: Tensor, labels: Tensor, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
        generator = draws.generator(self.setting.seed, "infomin", step.step)
        loss, log, dictionary = self.direction(views[0], views[1], index, generator, step)
        if self.config.jigsaw:
            puzzle, found = self.contrast(self.solve(views[2], generator), dictionary)
            loss = (1.0 - self.config.jigsaw_weight) * loss + self.config.jigsaw_weight * puzzle
            log |= {"jigsaw_top1": found["pretext_top1"], "jigsaw_information": found["mutual_information"]}
        return loss, log

    def solve(self, patches: Tensor, generator: Generator) -> Tensor:  # B x 9 x C x h x w -> B x d
        """The query of nine patches, each image's in a random order of its own."""
        assert self.patch_head is not None and self.jigsaw is not None
        if patches.ndim != 5 or patches.shape[1] != _PATCHES:
            raise ValueError(f"the third view must be B x {_PATCHES} x C x H x W patches, not {tuple(patches.shape)}")
        batch = len(patches)
        parts = self.patch_head(self.encoder(patches.flatten(0, 1))).unflatten(0, (batch, _PATCHES))  # B x 9 x d'
        # Drawn for the batch of all ranks, so that their number does not matter.
        order = own_rows(torch.rand(batch * world_size(), _PATCHES, generator=generator).argsort(dim=1))
        parts = parts.gather(1, order.to(parts.device)[:, :, None].expand_as(parts))
        return self.jigsaw(parts.flatten(1))
