"""Checkpoints as the official releases lay them out, around small networks of torchvision's and timm's with stirred weights."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torchvision
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from methods.encoders.vit import positions

State = dict[str, Tensor]


def stirred(network: nn.Module, seed: int = 0) -> nn.Module:
    """Away from the start, statistics too, where swapped norms would not show."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.02 * torch.randn(p.shape, generator=generator))
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.copy_(0.1 * torch.randn(layer.running_mean.shape, generator=generator))
                layer.running_var.copy_(0.5 + torch.rand(layer.running_var.shape, generator=generator))
    return network.eval()


@functools.cache
def resnet(name: str = "resnet18") -> nn.Module:
    """torchvision's, without its last layer."""
    network = stirred(torchvision.models.__dict__[name](num_classes=10))
    network.fc = nn.Identity()
    return network


@functools.cache
def vit(side: int = 32, patch: int = 16, heads: int = 3) -> VisionTransformer:
    """timm's ViT-Tiny."""
    norm = functools.partial(nn.LayerNorm, eps=1e-6)
    network = VisionTransformer(
        img_size=side, patch_size=patch, embed_dim=192, num_heads=heads, num_classes=0, norm_layer=norm, dynamic_img_size=True
    )
    return stirred(network)  # type: ignore[return-value]


@functools.cache
def fixed_vit() -> VisionTransformer:
    """MoCo v3's ViT-Small in its names: 12 heads, positions of sines and cosines."""
    norm = functools.partial(nn.LayerNorm, eps=1e-6)
    network = VisionTransformer(img_size=32, patch_size=16, embed_dim=384, num_heads=12, num_classes=0, norm_layer=norm)
    stirred(network)
    table = positions(2, 2, 384, torch.zeros(()))
    with torch.no_grad():
        network.pos_embed.copy_(torch.cat([torch.zeros_like(table[:1]), table])[None])
    return network


def under(prefix: str, *states: State) -> State:
    return {prefix + key: value for state in states for key, value in state.items()}


def mlp(name: str, *layers: str) -> State:
    """A head: a few small tensors under its name."""
    return {f"{name}.{layer}": torch.ones(4) for layer in layers or ("0.weight", "2.bias")}


def trained(state: State, inside: str = "state_dict", **more: Any) -> dict[str, Any]:
    """A whole checkpoint around a state dict."""
    return {"epoch": 200, "arch": "resnet18", inside: state, "optimizer": {"state": {}, "param_groups": [{"lr": 0.03}]}} | more


def moco() -> dict[str, Any]:
    own = resnet().state_dict()
    queue = {"queue": torch.zeros(8, 16), "queue_ptr": torch.zeros(1, dtype=torch.long)}
    other = under("encoder_k.", {key: value + 1 for key, value in own.items()}, mlp("fc"))
    return trained(under("module.", under("encoder_q.", own, mlp("fc", "0.weight", "2.weight")), other, queue))


def mocov3(network: nn.Module, head: str) -> dict[str, Any]:
    own = network.state_dict()
    other = under("momentum_encoder.", {key: value + 1 for key, value in own.items()}, mlp(head))
    return trained(under("module.", under("base_encoder.", own, mlp(head)), other, mlp("predictor")), scaler={"scale": 1.0})


def simsiam() -> dict[str, Any]:
    own = under("encoder.", resnet().state_dict(), mlp("fc", "0.weight", "6.bias"))
    return trained(under("module.", own, mlp("predictor")))


def swav() -> State:
    heads = mlp("projection_head") | {"prototypes.weight": torch.ones(3, 4)}
    return under("module.", resnet().state_dict(), heads)


def barlow() -> dict[str, Any]:
    heads = mlp("projector") | mlp("bn", "running_mean", "running_var")
    state = under("module.", under("backbone.", resnet().state_dict()), heads)
    return trained(state, "model")


def vicreg() -> dict[str, Any]:
    return trained(under("module.", under("backbone.", resnet().state_dict()), mlp("projector")), "model")


def dino(network: nn.Module) -> dict[str, Any]:
    own = network.state_dict()
    student = under("module.backbone.", {key: value + 1 for key, value in own.items()})
    return {
        "student": student | under("module.", mlp("head", "mlp.0.weight")),
        "teacher": under("backbone.", own) | mlp("head", "mlp.0.weight", "last_layer.weight_g"),
        "optimizer": {"state": {}},
        "epoch": 100,
        "args": argparse.Namespace(arch="vit_tiny", lr=0.0005),
        "dino_loss": {"center": torch.zeros(1, 8)},
        "best": np.float64(0.5),
    }


def converted_byol() -> State:
    own = {key: value for key, value in resnet("resnet50").state_dict().items() if "num_batches" not in key}
    return own | {"fc.weight": torch.ones(10, 2048), "fc.bias": torch.ones(10)}


def haiku_byol() -> State:
    """DeepMind's names and axes, as an .npz of both trees has them."""
    made: State = {}
    for key, value in converted_byol().items():
        *layer, kind = key.split(".")
        if layer == ["fc"]:
            made[f"res_net50/~/classifier/{'w' if kind == 'weight' else 'b'}"] = value.T if kind == "weight" else value
            continue
        module = "res_net50/~/"
        if layer[0].startswith("layer"):
            module += f"block_group_{int(layer[0][5:]) - 1}/~/block_{layer[1]}/~/"
            layer = layer[2:]
            if layer[0] == "downsample":
                module += "shortcut_conv" if layer[1] == "0" else "shortcut_batchnorm"
            else:
                module += f"{layer[0].replace('bn', 'batchnorm')[:-1]}_{int(layer[0][-1]) - 1}"
        else:
            module += f"initial_{layer[0].replace('bn', 'batchnorm')[:-1]}"
        if value.ndim == 4:
            made[f"{module}/w"] = value.permute(2, 3, 1, 0)
        elif kind in ("weight", "bias"):
            made[f"{module}/{'scale' if kind == 'weight' else 'offset'}"] = value.view(1, 1, 1, -1)
        else:
            statistic = {"running_mean": "mean_ema", "running_var": "var_ema"}[kind]
            made[f"{module}/~/{statistic}/average"] = value.view(1, 1, 1, -1)
            made[f"{module}/~/{statistic}/hidden"] = value.view(1, 1, 1, -1) + 5
            made[f"{module}/~/{statistic}/counter"] = torch.tensor(1000)
    return made | {"projector/linear/w": torch.ones(3, 4), "predictor/linear_1/b": torch.ones(3)}


def classified() -> State:
    return resnet().state_dict() | {"fc.weight": torch.ones(10, 512), "fc.bias": torch.ones(10)}


# layout -> the file, the network it holds, and what is left aside there
RELEASES: dict[str, tuple[str, Callable[[], Any], Callable[[], nn.Module], set[str]]] = {
    "moco": ("moco", moco, resnet, {"head", "key encoder", "queue"}),
    "moco-v3 resnet": ("moco-v3", lambda: mocov3(resnet(), "fc"), resnet, {"projector", "predictor", "momentum encoder"}),
    "moco-v3 vit": (
        "moco-v3",
        lambda: mocov3(fixed_vit(), "head"),
        fixed_vit,
        {"projector", "predictor", "momentum encoder", "fixed sin-cos positions"},
    ),
    "moco-v3 deit": ("moco-v3", lambda: {"model": fixed_vit().state_dict()}, fixed_vit, {"fixed sin-cos positions"}),
    "simsiam": ("simsiam", simsiam, resnet, {"projector", "predictor"}),
    "swav": ("swav", swav, resnet, {"projection head", "prototypes"}),
    "swav whole": ("swav", lambda: trained(swav()), resnet, {"projection head", "prototypes"}),
    "barlow": ("barlow", barlow, resnet, {"projector"}),
    "vicreg": ("vicreg", vicreg, resnet, {"projector"}),
    "dino vit": ("dino", lambda: dino(vit()), vit, {"head"}),
    "dino resnet": ("dino", lambda: dino(resnet()), resnet, {"head"}),
    "torchvision": ("torchvision", classified, resnet, {"classifier"}),
    "timm vit": ("timm", lambda: vit().state_dict() | mlp("head", "weight", "bias"), vit, {"classifier"}),
    "timm whole": ("timm", lambda: trained(vit().state_dict(), state_dict_ema=vit().state_dict()), vit, set()),
}
