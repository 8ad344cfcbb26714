"""A cell is held against a published number only where data, network, length and batch are the published ones."""

from __future__ import annotations

from typing import Any

import pytest

from reports.build import ROOT
from reports.comparable import encoder_of, why_not
from reports.evidence import Data
from reports.reference import Reference, read_references

CONFIG = {
    "data": {"name": "imagenet"},
    "encoder": {"name": "resnet50", "width": 1.0, "sk": False, "patch_size": 16},
    "epochs": 200,
    "batch_size": 256,
}
WORDS = dict.fromkeys(("table", "row", "column", "paper", "arxiv", "url", "year", "source", "metric", "protocol"), "x")


def reference(**words: Any) -> Reference:
    plain = {"dataset": "ImageNet-1k", "encoder": "ResNet-50", "epochs": "200", "batch": "256", "printed": "60", "value": 60.0}
    return Reference(**(WORDS | plain | {"unit": "%", "status": "paper-text", "document": "", "note": ""} | words))


def config(**changes: Any) -> dict[str, Any]:
    encoder = CONFIG["encoder"] | changes.pop("encoder", {})  # type: ignore[operator]
    return CONFIG | {"encoder": encoder} | changes


@pytest.mark.parametrize(
    ("words", "changes", "reason"),
    [
        ({}, {}, ""),
        ({"epochs": "800"}, {}, "epochs is 200, in the paper 800"),
        ({"epochs": ""}, {}, ""),
        ({"epochs": "<=1000"}, {}, "the paper's epochs is <=1000, ours 200"),
        ({"batch": "4096"}, {}, "batch_size is 256, in the paper 4096"),
        ({"dataset": "CIFAR-10"}, {}, "data.name is imagenet, in the paper cifar10"),
        ({"dataset": "VOC07+12 trainval -> VOC07 test", "encoder": "Faster R-CNN R50-C4"}, {}, ""),
        ({"encoder": "ResNet-18"}, {}, "encoder.name is resnet50, in the paper resnet18"),
        ({"encoder": "ResNet-50 (2x)"}, {}, "encoder.width is 1, in the paper 2"),
        ({"encoder": "ResNet-50 (2x)"}, {"encoder": {"width": 2.0}}, ""),
        ({"encoder": "ResNet-50 1x SK=yes"}, {}, "the paper's network has selective kernels"),
        ({"encoder": "ResNet-50 1x SK=yes"}, {"encoder": {"sk": True}}, ""),
        ({"encoder": "ViT-S/16"}, {"encoder": {"name": "vit_small"}}, ""),
        (
            {"encoder": "ViT-S/8"},
            {"encoder": {"name": "vit_small"}},
            "encoder.patch_size is 16, in the paper 8",
        ),
        ({"encoder": "AlexNet"}, {}, "the paper's network is AlexNet, ours resnet50"),
    ],
)
def test_the_registry_says_what_ours_must_be(words: dict[str, str], changes: dict[str, Any], reason: str) -> None:
    assert why_not(reference(**words), config(**changes), None) == reason


def test_what_the_paper_does_not_print_needs_no_comparison() -> None:
    assert why_not(None, CONFIG, None) == ""


def test_pixels_that_were_encoded_again_are_other_images() -> None:
    own = config(data={"name": "cifar10"})
    published = reference(dataset="CIFAR-10")
    assert why_not(published, own, Data("cifar10", "a" * 12, "torchvision")) == ""
    assert "not re-encoded" in why_not(published, own, Data("cifar10", "a" * 12, "tar archive, JPEG files"))
    assert why_not(reference(), CONFIG, Data("imagenet", "a" * 12, "JPEG files")) == ""  # that is how ImageNet is published
    assert "data.name is shapes" in why_not(reference(), CONFIG, Data("shapes", "a" * 12))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("RN50", ("resnet50", 1.0)),
        ("RN152w3+SK", ("resnet152", 3.0)),
        ("ResNet-50 (w4)", ("resnet50", 4.0)),
        ("ResNet-152 (3x+SK) self-distilled", ("resnet152", 3.0)),
        ("ResNet-50 (distilled from R152 3x+SK)", ("resnet50", 1.0)),
        ("ResNet-50 half-width pair (12M), no RandAug", ("resnet50", 0.5)),
        ("ResNet-50 (3x3 stem, no max-pool)", ("resnet50", 1.0)),
        ("C4 Faster/Mask R-CNN R50", ("resnet50", 1.0)),
        ("ViT-B", ("vit_base", 1.0)),
        ("ViT-BN-H/14", ("", 1.0)),
        ("ViT-SO400M-14-SigLIP", ("", 1.0)),
        ("ResNeXt-50", ("", 1.0)),
    ],
)
def test_a_networks_name_is_read(text: str, found: tuple[str, float]) -> None:
    assert encoder_of(text) == found


def test_every_network_of_the_registry_is_read_or_is_none_of_ours() -> None:
    texts = {cell.encoder for table in read_references(ROOT / "reports" / "reference").values() for cell in table.values()}
    unread = {text for text in texts if text and not encoder_of(text)[0]}
    ours = {text for text in unread if text.startswith(("ResNet-", "RN", "ViT-S/", "ViT-B/"))}
    assert not ours
