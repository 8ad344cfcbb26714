"""InfoMin's two branches against a slow transcription; what its switches do; what it refuses."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from methods import draws
from methods.base import Setting, Step
from methods.encoders import EncoderConfig
from methods.heads import HeadConfig
from methods.infomin import InfoMin, InfoMinConfig
from methods.moco import MoCoV2, MoCoV2Config
from methods.norms import Affine

HEAD = HeadConfig(hidden=10, out=6, norm="none")
ENCODER = EncoderConfig(name="convnet", stem="stride2", width=0.125)
STEP = Step(step=3, total_steps=10, epoch=0)
N, SEED = 6, 5
INDEX = torch.arange(N)


def views(seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(N, 3, 16, 16), (N, 3, 16, 16), (N, 9, 3, 16, 16)]
    return [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes]


def build(encoder: EncoderConfig = ENCODER, **config: Any) -> InfoMin:
    torch.manual_seed(0)
    settings: dict[str, Any] = {"head": HEAD, "patch_head": replace(HEAD, out=4), "queue": 16} | config
    method = InfoMin(InfoMinConfig(**settings), encoder, Setting(num_images=20, batch_size=N, seed=SEED)).double().train()
    if method.target is not None:
        with torch.no_grad():
            for p in method.target.parameters():
                p.add_(0.1 * torch.randn_like(p))
    return method


def value(method: InfoMin, batch: list[Tensor], step: Step = STEP) -> tuple[Tensor, dict[str, Tensor]]:
    return method.loss(batch, INDEX, INDEX, step)


def slow_nce(q: Tensor, k: Tensor, queue: Tensor, tau: float) -> Tensor:
    total = q.new_zeros(())
    for i in range(len(q)):
        a, b = q[i] / torch.sqrt((q[i] * q[i]).sum()), k[i] / torch.sqrt((k[i] * k[i]).sum())
        positive = torch.exp((a * b).sum() / tau)
        everything = positive
        for key in queue:
            everything = everything + torch.exp((a * key).sum() / tau)
        total = total - torch.log(positive / everything)
    return total / len(q)


def slow_branches(method: InfoMin, batch: list[Tensor]) -> tuple[Tensor, Tensor]:
    """L_NCE of the image and of its puzzle, image by image and patch by patch."""
    assert method.target is not None and method.queue is not None
    assert method.patch_head is not None and method.jigsaw is not None
    q = method.head(method.encoder(batch[0]))
    k = method.target(batch[1]).detach()
    # All patches go through the encoder together: its batch norm sees the 9 B of them.
    encoded = method.encoder(torch.cat([batch[2][i] for i in range(N)]))
    # No shuffling here, so that the patches' order is the first that is drawn.
    order = torch.rand(N, 9, generator=draws.generator(SEED, "infomin", STEP.step)).argsort(dim=1).tolist()
    puzzles = []
    for i in range(N):
        parts = [method.patch_head(encoded[9 * i + place]) for place in order[i]]
        puzzles.append(method.jigsaw(torch.cat(parts)))
    t, queue = method.config.temperature, method.queue.keys
    return slow_nce(q, k, queue, t), slow_nce(torch.stack(puzzles), k, queue, t)


@pytest.mark.parametrize("weight", [0.5, 0.2])
def test_loss_and_gradients_are_the_papers(weight: float) -> None:
    method = build(jigsaw_weight=weight)
    loss, log = value(method, views())
    image, puzzle = slow_branches(method, views())
    expected = (1 - weight) * image + weight * puzzle
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-9)
    assert log["mutual_information"].item() == pytest.approx(math.log(17) - image.item(), rel=1e-9)
    assert log["jigsaw_information"].item() == pytest.approx(math.log(17) - puzzle.item(), rel=1e-9)
    trained = {name: p for name, p in method.named_parameters() if p.requires_grad}
    fast, slow = torch.autograd.grad(loss, list(trained.values())), torch.autograd.grad(expected, list(trained.values()))
    for name, a, b in zip(trained, fast, slow, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9, msg=name)


def test_without_the_puzzle_it_is_moco_v2() -> None:
    method = build(jigsaw=False)
    twin = MoCoV2(MoCoV2Config(head=HEAD, queue=16, temperature=0.15), ENCODER, Setting(batch_size=N, seed=SEED)).double()
    assert not any("jigsaw" in name or "patch_head" in name for name in method.state_dict())
    twin.load_state_dict(method.state_dict())
    ours, log = value(method, views()[:2])
    theirs, expected = twin.loss(views()[:2], INDEX, INDEX, STEP)
    assert torch.equal(ours, theirs) and set(log) == set(expected)


def test_the_order_of_the_patches_is_forgotten() -> None:
    """Each image has an order of its own, another in each step, and every patch is in it once."""
    method = build(encoder=replace(ENCODER, norm="none"))
    method.encoder, method.patch_head = nn.Flatten(), nn.Sequential()
    method.jigsaw = nn.Flatten()  # type: ignore[assignment]
    patches = torch.arange(9.0).view(1, 9, 1, 1, 1).expand(N, 9, 1, 1, 1)
    first, second = (method.solve(patches, draws.generator(SEED, "infomin", k)).tolist() for k in (0, 1))
    assert all(sorted(row) == list(range(9)) for row in first + second)
    assert first != second and len({tuple(row) for row in first}) > 1
    assert first == method.solve(patches, draws.generator(SEED, "infomin", 0)).tolist()


def test_both_branches_ask_for_the_same_shuffled_keys() -> None:
    """With batch norms in parts; the keys of one step enter the queue once."""
    method = build(replace(ENCODER, bn_splits=3))
    assert method.shuffles and method.queue is not None
    value(method, views())
    assert len(method._fresh) == 1
    method.after_step(STEP)
    assert int(method.queue.cursor) == N


def test_perfect_puzzles_and_equal_ones() -> None:
    method = build()
    assert method.queue is not None
    method.queue.keys = -torch.eye(6).double()
    keys = torch.eye(6, dtype=torch.float64)
    loss, log = method.contrast(3.0 * keys, (keys, method.queue.keys, None))
    assert loss.item() < 0.01 and log["pretext_top1"].item() == 1.0
    same = torch.ones(6, 6, dtype=torch.float64)
    unit = same / math.sqrt(6)
    loss, log = method.contrast(same, (unit, unit, None))
    assert loss.item() == pytest.approx(math.log(7)) and log["pretext_top1"].item() == 0.0


def test_a_memory_bank_may_hold_the_keys_of_both_branches() -> None:
    method = build(mechanism="memory_bank")
    loss, log = value(method, views())
    assert loss.isfinite() and {"jigsaw_top1", "jigsaw_information"} <= set(log)


def test_affine_norms_of_the_patch_head_are_set_from_the_first_patches() -> None:
    method = build(replace(ENCODER, norm="affine"), patch_head=replace(HEAD, out=4, norm="affine"))
    method.prepare(views())
    assert method.patch_head is not None and method.target is not None
    norms = [m for m in method.modules() if isinstance(m, Affine) and m.weight.requires_grad]
    assert len(norms) == 5 and all((norm.weight != 1).any() for norm in norms)
    hidden = method.patch_head[:2](method.encoder(views()[2].flatten(0, 1)))
    torch.testing.assert_close(hidden.mean(dim=0), torch.zeros(10).double(), atol=1e-6, rtol=0)
    online = [*method.encoder.parameters(), *method.head.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(method.target.parameters(), online, strict=True))


def test_defaults_are_the_released_codes() -> None:
    config = InfoMinConfig()
    assert (config.temperature, config.queue, config.target_ema) == (0.15, 65536, 0.999)
    assert config.jigsaw and config.jigsaw_weight == 0.5 and config.head == config.patch_head == MoCoV2Config().head
    method = InfoMin(replace(config, queue=8), ENCODER, Setting())
    assert method.jigsaw is not None
    assert (method.jigsaw.in_features, method.jigsaw.out_features) == (9 * 128, 128)


def test_what_cannot_be_trained_is_refused() -> None:
    with pytest.raises(ValueError, match="goes one way"):
        InfoMinConfig(symmetric=True)
    with pytest.raises(ValueError, match=r"jigsaw_weight must be in \[0, 1\], not 2"):
        InfoMinConfig(jigsaw_weight=2.0)
    with pytest.raises(ValueError, match="temperature must be positive"):
        InfoMinConfig(temperature=-1.0)
    with pytest.raises(ValueError, match="needs a third view of 9 patches, but there are 2 views"):
        InfoMin(InfoMinConfig(queue=8), ENCODER, Setting(num_views=2))
    assert InfoMin(InfoMinConfig(queue=8, jigsaw=False), ENCODER, Setting(num_views=2)).jigsaw is None
    batch = views()
    with pytest.raises(ValueError, match="third view must be B x 9 x C x H x W patches"):
        value(build(), [*batch[:2], batch[2][:, :4]])
