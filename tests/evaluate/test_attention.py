"""Attention maps: masks and overlaps with a known answer, the head chosen without the test, and the picture."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from PIL import Image

from benchmark.data.boxes import Photo, find_boxes
from benchmark.errors import InputError
from benchmark.evaluate import attention as room
from benchmark.evaluate.attention import attention, fitted, jaccard, maps, masks, objects_of
from benchmark.evaluate.subject import Place
from methods.encoders import EncoderConfig
from tests.evaluate.subjects import drawn_subject

VIT = EncoderConfig(name="vit_tiny", width=0.5, heads=3, patch_size=8)
PLAIN = {"dataset": "none", "mass": 0.6, "images": 0, "drawn": 3, "side": 0}


def photo_of(boxes, bright=230, outlines=None, height=40, width=56):
    """A photograph as benchmark.data.boxes has it, with a rectangle in the place of its first box."""
    boxes = np.array(boxes, float).reshape(-1, 4)

    def load():
        image = np.full((height, width, 3), 250 - bright, np.uint8)
        if len(boxes):
            left, top, right, bottom = boxes[0].astype(int)
            image[top:bottom, left:right] = bright
        return image

    n = len(boxes)
    none = np.zeros(n, bool)
    return Photo(0, "a", "a", height, width, boxes, np.zeros(n, int), np.ones(n), none, none, outlines, load)


def square_at(left, bright=230):
    return photo_of([[left, 8, left + 24, 32]], bright)


@dataclass
class Photos:
    train: tuple
    test: tuple
    content: str = "0123456789ab"
    name: str = "coco"


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    made = drawn_subject(tmp_path_factory.mktemp("cache"), VIT)
    made.boxes = lambda name: Photos(tuple(map(square_at, (0, 8, 16, 24))), tuple(map(square_at, (0, 16, 32))))
    return made


def test_a_mask_is_the_fewest_patches_with_the_mass():
    weights = torch.tensor([[[0.5, 0.25], [0.15, 0.1]], [[0.25, 0.25], [0.25, 0.25]]])
    assert masks(weights, 0.5).tolist() == [[[True, False], [False, False]], [[True, True], [False, False]]]
    assert masks(weights, 0.6)[0].tolist() == [[True, True], [False, False]]
    assert masks(weights, 1.0).all()
    generator = torch.Generator().manual_seed(0)
    many = torch.softmax(3 * torch.randn(5, 7, 9, generator=generator, dtype=torch.float64), dim=0)
    many = many / many.flatten(1).sum(dim=1)[:, None, None]
    for head, kept in zip(many, masks(many, 0.6), strict=True):
        inside = head[kept].sum()
        assert inside >= 0.6 - 1e-9 > inside - head[kept].min()  # one fewer would not do
        assert head[kept].min() >= head[~kept].max()


def test_jaccard_has_its_known_values():
    a, b = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    assert jaccard(a, b) == 100.0
    a[:2] = True
    assert jaccard(a, b) == 0.0 and jaccard(a, a) == 100.0
    b[1:3] = True
    assert jaccard(a, b) == pytest.approx(100 / 3)


def test_objects_are_masks_or_else_boxes():
    boxes = [[2.0, 4.0, 10.0, 8.0], [30.0, 30.0, 56.0, 39.0]]
    covered = objects_of(photo_of(boxes))
    assert covered.sum() == 8 * 4 + 26 * 9 and covered[4:8, 2:10].all()
    over = objects_of(photo_of([[-3.0, -2.0, 10.0, 8.0], [50.0, 35.0, 60.0, 44.0]]))  # beyond the edges there is nothing
    assert over.sum() == 10 * 8 + 6 * 5 and over[:8, :10].all() and over[35:, 50:].all()
    outlines = ((np.array([2.0, 4.0, 10.0, 4.0, 10.0, 8.0, 2.0, 8.0]),), (np.array([30.0, 30.0, 56.0, 30.0, 56.0, 39.0]),))
    masked = objects_of(photo_of(boxes, outlines=outlines))  # a rectangle and a triangle: half of its box
    assert masked[:20].sum() == 8 * 4 and masked[20:].sum() == pytest.approx(26 * 9 / 2, abs=20)
    drawn = find_boxes("shapes", None).open().test[0]
    assert np.array_equal(objects_of(drawn), drawn.masks().any(axis=0)) and objects_of(drawn).any()


def test_the_maps_are_the_last_blocks_attention(subject):
    network = subject.network.backbone()
    seen, weights = maps(subject, network, square_at(0).pixels(), 32)
    assert seen.shape == (32, 40, 3) and weights.shape == (3, 4, 5)  # 45 pixels wide, cut to five patches
    assert torch.allclose(weights.flatten(1).sum(dim=1), torch.ones(3))
    x = torch.from_numpy(seen).permute(2, 0, 1)[None] / 255
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (subject.dataset.mean, subject.dataset.std))
    expected = network.attention((x - mean) / std)[0, :, 0, 1:]
    assert torch.allclose(weights.flatten(1), expected / expected.sum(dim=1, keepdim=True), atol=1e-6)
    assert np.array_equal(fitted(square_at(0).pixels(), 40, 8), square_at(0).pixels())


def attends(images):
    """Head 1 looks at bright patches, head 2 at dark ones, head 0 everywhere."""
    bright = torch.nn.functional.avg_pool2d(images.mean(dim=1, keepdim=True), 8).flatten(1)  # 1 x patches
    bright = (bright > bright.mean()).float() + 1e-9
    weights = torch.zeros(1, 3, bright.shape[1] + 1, bright.shape[1] + 1)
    weights[0, :, 0, 1:] = torch.cat([torch.ones_like(bright), bright, 1.0 + 2e-9 - bright])
    return weights


def test_the_head_that_finds_the_objects_is_chosen_on_training_photographs(subject, tmp_path, monkeypatch):
    monkeypatch.setattr(subject.network.backbone(), "attention", attends)
    protocol = PLAIN | {"dataset": "coco", "mass": 1 - 1e-6, "side": 40}
    found = attention(subject, protocol, Place(tmp_path, "a"))
    assert found.chosen["head"] == 1 and found.metrics["jaccard"] == pytest.approx(100.0)
    assert found.metrics["jaccard_oracle"] == pytest.approx(100.0) and found.metrics["jaccard_heads"] < 70
    share = 100 * 24 * 24 / (40 * 56)
    assert found.metrics["jaccard_everything"] == pytest.approx(share)
    dark = Photos(subject.boxes("coco").train, tuple(square_at(left, bright=20) for left in (0, 16, 32)))
    monkeypatch.setattr(subject, "boxes", lambda name: dark)
    other = attention(subject, protocol, Place(tmp_path, "b"))  # where the test has dark objects, the choice stays
    assert other.chosen["head"] == 1 and other.metrics["jaccard"] < 10 < other.metrics["jaccard_oracle"]


def test_a_picture_is_left(subject, tmp_path):
    found = attention(subject, PLAIN, Place(tmp_path, "attention-0"))
    assert found.metrics == {} and found.pictures == ("attention-0-attention.png",)
    image = np.asarray(Image.open(tmp_path / found.pictures[0]).convert("RGB"))
    assert min(image.shape[:2]) > 300 and image.std() > 20


@pytest.mark.parametrize("heads", [1, 2, 6])
def test_the_title_fits_above_the_panels(tmp_path, heads):
    seen = np.full((64, 64, 3), 90, np.uint8)
    room.draw(tmp_path / "maps.png", [(seen, seen, torch.rand(heads, 8, 8))], 0.6)
    image = np.asarray(Image.open(tmp_path / "maps.png").convert("L"))
    title = image[: image.shape[0] // 6]
    assert (title < 128).any() and (title[:, [0, 1, 2, -3, -2, -1]] > 250).all()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"mass": 0.0}, "mass is 0.0"),
        ({"side": 4}, "side is 4 pixels, but a patch alone has 8"),
        ({"dataset": "voc07"}, "no data set 'voc07' is at hand"),
    ],
)
def test_what_cannot_be_is_refused(subject, tmp_path, monkeypatch, changes, sentence):
    monkeypatch.setattr(subject, "boxes", None)
    with pytest.raises(InputError, match=sentence):
        attention(subject, PLAIN | changes, Place(tmp_path, "a"))


def test_an_empty_test_split_is_told(subject, tmp_path):
    empty = replace(subject, split=replace(subject.split, test=np.arange(0)))
    with pytest.raises(InputError, match=r"attention: shapes has no test image here to draw; see data\.test_images"):
        attention(empty, PLAIN, Place(tmp_path, "a"))


def test_a_residual_network_has_no_attention(tmp_path):
    with pytest.raises(InputError, match="only a ViT has attention maps"):
        attention(drawn_subject(tmp_path, EncoderConfig(name="resnet10", width=0.25)), PLAIN, Place(tmp_path, "a"))


def test_photographs_without_objects_are_refused(subject, tmp_path, monkeypatch):
    monkeypatch.setattr(subject, "boxes", lambda name: Photos((photo_of([]),), (photo_of([]),)))
    with pytest.raises(InputError, match="no photograph of the data set has an object"):
        attention(subject, PLAIN | {"dataset": "coco"}, Place(tmp_path, "a"))
    assert room.jaccard(np.zeros((2, 2), bool), np.ones((2, 2), bool)) == 0.0


def test_other_photographs_than_planned_are_refused(subject, tmp_path):
    with pytest.raises(InputError, match="content is aaaaaaaaaaaa, the coco at hand has 0123456789ab"):
        attention(subject, PLAIN | {"dataset": "coco", "content": "a" * 12}, Place(tmp_path, "a"))
