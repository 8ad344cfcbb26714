"""What people use today, as contenders: torchvision's v2 transforms and lightly's in a DataLoader, kornia's on batches.

Each gets the same law of augmentation, as many processes or threads as there are cores, workers that outlive an epoch and,
where it can be fed in several ways, the one that turns out fastest on this machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from multiprocessing import get_all_start_methods
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms import v2

from benchmark.bench.contender import Way
from benchmark.bench.images import Work
from benchmark.data.beton import open_beton
from benchmark.data.views import blur_taps
from methods.views import ViewConfig

Views = list[Tensor]


def torchvision(work: Work) -> Mapping[str, Way]:
    """A DataLoader of transforms v2: an image is decoded once, and every view made from it."""
    return {
        f"DataLoader of {kind}, {work.cores} workers": _loading(_Samples(work, kind, _torchvision(work, kind)), work)
        for kind in ("PIL images", "tensors")
    }


def lightly(work: Work) -> Mapping[str, Way]:
    """A DataLoader of lightly's SimCLRTransform, with the work's strengths."""
    from lightly.transforms import SimCLRTransform

    view, *others = work.views
    if any(other != view for other in others) or len(work.views) != 2:
        raise ValueError("SimCLRTransform makes two views of one law")
    transform = SimCLRTransform(
        input_size=_size(work, view),
        cj_prob=view.jitter_prob,
        cj_strength=1.0,
        cj_bright=view.brightness,
        cj_contrast=view.contrast,
        cj_sat=view.saturation,
        cj_hue=view.hue,
        min_scale=view.crop_scale[0],
        random_gray_scale=view.grayscale_prob,
        gaussian_blur=view.blur_prob,
        sigmas=view.blur_sigma,
        hf_prob=view.flip_prob,
        normalize={"mean": list(work.dataset.mean), "std": list(work.dataset.std)},
    )
    # Tensors are no alternative: its blur turns them into PIL images and back.
    return {
        f"DataLoader of PIL images, SimCLRTransform, {work.cores} workers": _loading(
            _Samples(work, "PIL images", transform), work
        )
    }


def kornia(work: Work) -> Mapping[str, Way]:
    """kornia's augmentations, each sample its own draws, on batches cut from a tensor in memory: nothing else to wait for."""
    images = _tensors(work)
    crops = {crop: _kornia(work, crop) for crop in ("resample", "slice")}  # one warp for all, or an interpolation for each
    workers = {
        f"batches in memory, crops by {crop}, {work.cores} DataLoader workers": _loading(
            _Batches(images, views), work, batched=True
        )
        for crop, views in crops.items()
    }
    torch.set_num_threads(work.cores)
    threads: dict[str, Way] = {
        f"batches in memory, crops by {crop}, one process of {work.cores} threads": partial(_in_memory, images, views, work)
        for crop, views in crops.items()
    }
    return workers | threads


def kornia_compiled(work: Work) -> Mapping[str, Way]:
    """The same through torch.compile, which takes about a minute of every new process."""
    torch.set_num_threads(work.cores)
    views = [torch.compile(view) for view in _kornia(work, "resample")]
    return {
        f"batches in memory, crops by resample, one process of {work.cores} threads": partial(
            _in_memory, _tensors(work), views, work
        )
    }


def _size(work: Work, view: ViewConfig) -> int:
    return view.size or work.size


def _torchvision(work: Work, kind: str) -> Callable[[Any], Views]:
    normalize = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(work.dataset.mean, work.dataset.std)]
    if kind == "PIL images":
        normalize.insert(0, v2.ToImage())
    laws = {
        view: v2.Compose(
            [
                v2.RandomResizedCrop(_size(work, view), view.crop_scale, view.crop_ratio, antialias=True),
                v2.RandomHorizontalFlip(view.flip_prob),
                v2.RandomApply([v2.ColorJitter(view.brightness, view.contrast, view.saturation, view.hue)], view.jitter_prob),
                v2.RandomGrayscale(view.grayscale_prob),
                v2.RandomApply([v2.GaussianBlur(blur_taps(view, _size(work, view)), view.blur_sigma)], view.blur_prob),
                *normalize,
            ]
        )
        for view in set(work.views)
    }
    return partial(_apply, [laws[view] for view in work.views])


def _apply(laws: Sequence[Callable[[Any], Tensor]], image: Any) -> Views:
    return [law(image) for law in laws]


def _kornia(work: Work, crop: str) -> list[nn.Module]:
    import kornia.augmentation as augment

    return [
        nn.Sequential(
            augment.RandomResizedCrop(
                (_size(work, view),) * 2, view.crop_scale, view.crop_ratio, align_corners=False, cropping_mode=crop
            ),
            augment.RandomHorizontalFlip(p=view.flip_prob),
            augment.ColorJitter(view.brightness, view.contrast, view.saturation, view.hue, p=view.jitter_prob),
            augment.RandomGrayscale(p=view.grayscale_prob),
            augment.RandomGaussianBlur((blur_taps(view, _size(work, view)),) * 2, view.blur_sigma, p=view.blur_prob),
            augment.Normalize(torch.tensor(work.dataset.mean), torch.tensor(work.dataset.std)),
        )
        for view in work.views
    ]


def _in_memory(images: Tensor, views: Sequence[Callable[[Tensor], Tensor]], work: Work, count: int) -> Iterator[Views]:
    draws = _Draws(len(images), work.batch)
    draws.count = count
    for index in draws.batches():
        batch = images[index].float() / 255
        yield [view(batch) for view in views]


def _tensors(work: Work) -> Tensor:
    """All training images, u1 (N, 3, H, W)."""
    return torch.from_numpy(open_beton(work.dataset.train).images()).permute(0, 3, 1, 2).contiguous()


class _Samples(Dataset[Views]):
    """One image and all of its views; from memory where images are small, else read and decoded."""

    def __init__(self, work: Work, kind: str, transform: Callable[[Any], Views]) -> None:
        self._files, self._pil, self._transform = work.files, kind == "PIL images", transform
        self._images = None if work.files else open_beton(work.dataset.train).images()

    def __len__(self) -> int:
        return len(self._files) if self._images is None else len(self._images)

    def __getitem__(self, index: int) -> Views:
        return self._transform(self._read(self._files[index]) if self._images is None else self._stored(self._images[index]))

    def _read(self, file: str) -> Any:
        if self._pil:
            with Image.open(file) as image:
                return image.convert("RGB")
        return decode_jpeg(torch.from_numpy(np.fromfile(file, np.uint8)), mode=ImageReadMode.RGB)

    def _stored(self, pixels: np.ndarray) -> Any:
        return Image.fromarray(pixels) if self._pil else torch.from_numpy(pixels).permute(2, 0, 1)


class _Batches(Dataset[Views]):
    """A whole batch for a list of indices."""

    def __init__(self, images: Tensor, views: Sequence[Callable[[Tensor], Tensor]]) -> None:
        self._images, self._views = images, views

    def __getitem__(self, index: list[int]) -> Views:
        batch = self._images[index].float() / 255
        return [view(batch) for view in self._views]


class _Draws(Sampler[Any]):
    """Indices in random order, over and over, for `count` batches."""

    def __init__(self, images: int, batch: int, batched: bool = False) -> None:
        self._images, self._batch, self._batched, self.count = images, batch, batched, 0

    def __len__(self) -> int:
        return self.count if self._batched else self.count * self._batch

    def __iter__(self) -> Iterator[Any]:
        for index in self.batches():
            if self._batched:
                yield index
            else:
                yield from index

    def batches(self) -> Iterator[list[int]]:
        waiting: list[int] = []
        for _ in range(self.count):
            while len(waiting) < self._batch:
                waiting += torch.randperm(self._images).tolist()
            yield waiting[: self._batch]
            del waiting[: self._batch]


def _loading(dataset: Dataset[Views], work: Work, batched: bool = False) -> Way:
    """The batches of a DataLoader; `batched`: the data set makes whole batches."""
    torch.set_num_threads(1)  # a worker has one thread in any case; the process that waits for them needs no more
    length = len(dataset._images) if isinstance(dataset, _Batches) else len(dataset)  # type: ignore[arg-type]
    draws = _Draws(length, work.batch, batched)
    loader = DataLoader(
        dataset,
        batch_size=None if batched else work.batch,
        sampler=draws,
        num_workers=work.cores,
        persistent_workers=True,
        multiprocessing_context=get_all_start_methods()[0],  # the system's usual one; a spawned process would spawn on
    )
    return partial(_loaded, loader, draws)


def _loaded(loader: DataLoader[Views], draws: _Draws, count: int) -> Iterator[Views]:
    draws.count = count
    yield from loader
