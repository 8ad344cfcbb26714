"""Where a ViT's class token looks: maps of each head as a picture, masks, and how they fit the objects that are there.

    a_h = softmax(q_cls K^T / sqrt(d)) over the patches of the last block, head h, made to sum to one
    mask_h = the fewest patches that hold `mass` of a_h                           DINO (2104.14294, section 4.2.2): 60 %
    Jaccard = |mask and objects| / |mask or objects|, in percent, the mean over photographs

DINO measures on VOC12's segmentation and takes its best head; ViT-S/16 has 45.9 there, supervised 27.3, untrained 22.0 (figure
4, from memory). Here the head is chosen on training photographs. What it would be with each photograph's own best head, chosen
with the answer at hand, is `jaccard_oracle`; `jaccard_everything` is the score of a mask that covers the photograph.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmark.data import central_views
from benchmark.data.boxes import Photo
from benchmark.errors import InputError
from benchmark.evaluate.subject import Found, Place, Subject
from methods.encoders.vit import ViT

Pixels = NDArray[np.uint8]  # H x W x 3
Mask = NDArray[np.bool_]  # H x W


# NOTE(departs): DINO's figure 4 names its best head without saying where it was chosen; ours is chosen on training
# photographs, and the best head of each test photograph is reported apart.
# NOTE(departs): The objects of a photograph count together, whatever their class; where a data set has boxes and no masks,
# the boxes are the objects.
def attention(subject: Subject, protocol: dict[str, Any], place: Place) -> Found:
    """Leaves `<stem>-attention.png`; metrics where the protocol's dataset has objects to compare with."""
    network = transformer(subject.network.backbone())
    if list(subject.channels) != ["rgb"]:
        raise InputError(f"attention: the network sees {' + '.join(subject.channels)}, but the maps are drawn over rgb images")
    side, patch, mass = protocol["side"] or subject.image_size, network.patch_embed.size, protocol["mass"]
    if not 0 < mass <= 1:
        raise InputError(f"attention: mass is {mass}, but a mask holds a share of the attention above 0 and at most 1")
    if side < patch:
        raise InputError(f"attention: side is {side} pixels, but a patch alone has {patch}")
    metrics: dict[str, float] = {}
    chosen: dict[str, Any] = {}
    if protocol["dataset"] == "none":
        if not len(subject.split.test):
            raise InputError(f"attention: {subject.dataset.name} has no test image here to draw; see data.test_images")
        shown = drawn_images(subject, protocol["drawn"])
    else:
        if subject.boxes is None:
            raise InputError(f"attention: no data set '{protocol['dataset']}' is at hand; give it with --data")
        photos = subject.boxes(protocol["dataset"])
        if protocol.get("content", photos.content) != photos.content:
            raise InputError(
                f"attention.content is {protocol['content']}, the {photos.name} at hand has {photos.content}; point --data at "
                f"the photographs this was planned for"
            )
        limit = protocol["images"] or None
        tuned = overlaps(subject, network, photos.train[:limit], side, mass)
        tested = overlaps(subject, network, photos.test[:limit], side, mass)
        head = int(tuned[:, :-1].mean(axis=0).argmax())
        by_head = tested[:, :-1]
        metrics = {
            "jaccard": float(by_head[:, head].mean()),
            "jaccard_heads": float(by_head.mean()),
            "jaccard_oracle": float(by_head.max(axis=1).mean()),
            "jaccard_everything": float(tested[:, -1].mean()),
        }
        chosen = {"head": head, "train_jaccard": float(tuned[:, head].mean()), "test_by_head": by_head.mean(axis=0).tolist()}
        shown = [photo.pixels() for photo in photos.test[: protocol["drawn"]]]
    picture = place.file("attention.png")
    draw(picture, [(image, *maps(subject, network, image, side)) for image in shown], mass)
    return Found(metrics, chosen, (picture.name,))


def transformer(backbone: nn.Module) -> ViT:
    if not isinstance(backbone, ViT):
        raise InputError(
            "attention: only a ViT has attention maps, this encoder is none (encoder.name vit_tiny, vit_small, vit_base)"
        )
    return backbone


@torch.no_grad()
def maps(subject: Subject, network: ViT, image: Pixels, side: int) -> tuple[Pixels, Tensor]:
    """(the image as the network sees it, H x W x 3; the class token's attention to its patches, heads x rows x columns, each
    head's sum 1). The shorter side has `side` pixels; what does not fill a patch is cut off to the right and below."""
    seen = fitted(image, side, network.patch_embed.size)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (subject.dataset.mean, subject.dataset.std))
    x = (torch.from_numpy(seen).permute(2, 0, 1).float() / 255.0 - mean) / std
    weights = network.attention(x[None].to(subject.device))[0, :, 0, 1:].float().cpu()  # heads x patches
    rows, columns = (length // network.patch_embed.size for length in seen.shape[:2])
    return seen, (weights / weights.sum(dim=1, keepdim=True)).unflatten(1, (rows, columns))


def fitted(image: NDArray[Any], side: int, patch: int, nearest: bool = False) -> NDArray[Any]:
    """The image, or a mask of it (nearest), with `side` pixels on its shorter side, cut to whole patches."""
    from PIL import Image

    height, width = image.shape[:2]
    scale = side / min(height, width)
    size = max(side, round(width * scale)), max(side, round(height * scale))
    how = Image.Resampling.NEAREST if nearest else Image.Resampling.BILINEAR
    resized = np.asarray(Image.fromarray(image.astype(np.uint8)).resize(size, how))
    return resized[: size[1] // patch * patch, : size[0] // patch * patch].copy()


def masks(weights: Tensor, mass: float) -> Tensor:  # heads x rows x columns -> the same, bool
    """The fewest patches of each head whose attention sums to at least `mass`; of equals the first."""
    flat = weights.flatten(1).double()
    order = flat.argsort(dim=1, descending=True, stable=True)
    before = flat.gather(1, order).cumsum(dim=1) - flat.gather(1, order)  # of the patches that come earlier
    kept = before < mass - 1e-9  # rounding must not add a patch
    return torch.zeros_like(kept).scatter(1, order, kept).view(weights.shape)


def jaccard(mask: Mask, objects: Mask) -> float:
    """Percent; 100 where both are empty."""
    union = np.logical_or(mask, objects).sum()
    return 100.0 * float(np.logical_and(mask, objects).sum() / union) if union else 100.0


def objects_of(photo: Photo) -> Mask:
    """Every pixel of the photograph that belongs to an object: its masks, or its boxes where it has none."""
    if photo.outlines is not None:
        covered: Mask = np.logical_or.reduce(photo.masks(), axis=0)
        return covered
    found = np.zeros((photo.height, photo.width), bool)
    for left, top, right, bottom in photo.boxes.round().astype(int).clip(min=0):  # below 0 would count from the far side
        found[top:bottom, left:right] = True
    return found


def overlaps(subject: Subject, network: ViT, photos: Sequence[Photo], side: int, mass: float) -> NDArray[np.float64]:
    """photos x (heads + 1): the Jaccard of each head's mask with the objects, and last that of the whole photograph."""
    patch, rows = network.patch_embed.size, []
    for photo in photos:
        subject.stop.heed()
        if len(photo.boxes) == 0:
            continue
        _, weights = maps(subject, network, photo.pixels(), side)
        objects = fitted(objects_of(photo), side, patch, nearest=True).astype(bool)
        large = F.interpolate(masks(weights, mass)[None].float(), scale_factor=patch, mode="nearest")[0].numpy() > 0.5
        rows.append([*(jaccard(head, objects) for head in large), jaccard(np.ones_like(objects), objects)])
    if not rows:
        raise InputError("attention: no photograph of the data set has an object to compare the maps with")
    return np.array(rows)


def drawn_images(subject: Subject, count: int) -> list[Pixels]:
    """The first test images as evaluation shows them."""
    dataset = subject.dataset
    seen = central_views(dataset, "test", subject.split.test[:count], subject.image_size)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (dataset.mean, dataset.std))
    return list(((seen * std + mean).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy())


def draw(path: Path, rows: Sequence[tuple[Pixels, Pixels, Tensor]], mass: float) -> None:
    """A row an image: the image, then for each head its map over the image and, outlined, its mask."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    heads = len(rows[0][2])
    figure, panels = plt.subplots(
        len(rows), heads + 1, figsize=(1.7 * (heads + 1), 1.75 * len(rows) + 0.5), layout="constrained", dpi=150, squeeze=False
    )
    for line, (_, seen, weights) in zip(panels, rows, strict=True):
        patch = seen.shape[0] // weights.shape[1]
        line[0].imshow(seen, interpolation="nearest")
        kept = masks(weights, mass)
        for head, panel in enumerate(line[1:]):
            large = np.kron(weights[head].numpy(), np.ones((patch, patch)))
            outline = np.kron(kept[head].numpy(), np.ones((patch, patch)))
            panel.imshow(seen.mean(axis=2), cmap="gray", vmin=0, vmax=255)
            panel.imshow(large, cmap="inferno", alpha=0.7, vmin=0, vmax=float(large.max()) or 1.0)
            if 0 < outline.mean() < 1:
                panel.contour(outline, levels=[0.5], colors="white", linewidths=0.8)
        for panel in line:
            panel.set_xticks([])
            panel.set_yticks([])
    panels[0][0].set_title("image", fontsize=9)
    for head in range(heads):
        panels[0][head + 1].set_title(f"head {head}", fontsize=9)
    end = "\n" if heads < 2 else " "  # two panels are narrower than the sentence
    figure.suptitle(f"attention of the class token;{end}outlined: the patches with {100 * mass:g} % of it", fontsize=10)
    figure.savefig(path)
    plt.close(figure)
