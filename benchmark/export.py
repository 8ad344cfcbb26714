"""python -m benchmark.export CHECKPOINT --layout torchvision|timm|detectron2 --out FILE: an encoder for other libraries.

The checkpoint is one of ours, or any that `python -m benchmark.evaluate` reads. Before a file for torchvision or timm is
written, their own network is built, loaded with it, and must give the same features of the same images.
Exit codes: 0 written, 2 bad input.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import io
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmark import console
from benchmark.errors import InputError
from benchmark.evaluate import show
from benchmark.evaluate.__main__ import encoder_settings
from benchmark.evaluate.detection.convert import from_detectron2, to_detectron2, write_pkl
from benchmark.evaluate.foreign import Foreign, check, described, open_foreign
from benchmark.evaluate.layouts import NAMES as LAYOUTS
from benchmark.evaluate.names import to_torchvision_vit
from benchmark.evaluate.weights_file import read_weights
from benchmark.store.record import write_bytes
from methods.encoders import EncoderConfig
from methods.encoders.config import BOTTLENECKS
from methods.encoders.resnet import BLOCKS, ResNet
from methods.encoders.vit import ViT, positions

TARGETS = ("torchvision", "timm", "detectron2")
OK, BAD_INPUT = 0, 2


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmark.export",
        description="Write the encoder of a checkpoint as torchvision, timm or detectron2 name its tensors.",
        epilog="exit codes: 0 written, 2 bad input",
    )
    parser.add_argument("file", type=Path, help="a checkpoint of ours, or any that benchmark.evaluate reads")
    parser.add_argument("--layout", required=True, choices=TARGETS)
    parser.add_argument("--out", type=Path, required=True, help=".pth, .safetensors; of detectron2 .pkl")
    parser.add_argument("--from", dest="source", default="auto", choices=LAYOUTS, metavar="NAME",
                        help=f"the checkpoint's layout: {', '.join(LAYOUTS)} (default: auto)")  # fmt: skip
    parser.add_argument("--encoder", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
                        help="what the file does not say of the encoder, e.g. heads=12")  # fmt: skip
    parser.add_argument("--image-size", type=int, default=224, metavar="PIXELS",
                        help="side for which a ViT's fixed sin-cos positions are written out; default: 224")  # fmt: skip
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments(argv)
    try:
        _writable(args.out, args.layout)
        foreign = open_foreign(read_weights(args.file), args.source, encoder_settings(args.encoder))
        check(foreign, args.file)
        state = exported(foreign, args.layout, args.image_size, args.file)
        _write(args.out, args.layout, state)
    except InputError as error:
        console.error(str(error))
        return BAD_INPUT
    show.say(f"{args.out}: {described(foreign.encoder)} as {args.layout} has it, {len(state)} tensors.")
    show.say(_usage(args.layout, foreign, state, args.out.name))
    return OK


def exported(foreign: Foreign, layout: str, image_size: int, path: Path) -> dict[str, Tensor]:
    """The state dict of an encoder under another library's names, without a head. InputError where it has no such network."""
    network, encoder = foreign.network.backbone(), foreign.encoder  # type: ignore[operator]
    if list(foreign.channels) != ["rgb"]:
        raise InputError(f"{path}: its encoder takes images in {', '.join(foreign.channels)}, and other libraries' take rgb")
    if foreign.same_pads:
        raise InputError(
            f"{path}: its convolutions are padded as TensorFlow's SAME, which no network of {layout} does; whoever accepts "
            "other features says --from torchvision"
        )
    if isinstance(network, ResNet):
        _ordinary(encoder, layout, path)
        state = dict(network.state_dict())
    elif isinstance(network, ViT) and layout != "detectron2":
        state = dict(network.state_dict())
        state.pop("draws", None)  # of drop path, which only training has
        if encoder.positions == "sincos":
            state["pos_embed"] = _written_out(network, encoder, image_size, path)
    else:
        raise InputError(f"{path}: {layout} has no network like its encoder, {described(encoder)}")
    if layout == "detectron2":
        named = to_detectron2(state)
        back = from_detectron2(named)
        assert back.keys() == state.keys() and all(torch.equal(back[key], state[key]) for key in state)
        return named
    if layout == "torchvision" and isinstance(network, ViT):
        state = {to_torchvision_vit(key): value for key, value in state.items()}
    _compare(network, theirs(layout, encoder, state), state, _side(encoder, state))
    return {key: value.detach().clone() for key, value in state.items()}


def theirs(layout: str, encoder: EncoderConfig, state: dict[str, Tensor]) -> nn.Module:
    """The network of torchvision or timm that has an exported state dict, without its head."""
    if not encoder.name.startswith("vit"):
        counts, bottleneck = BLOCKS[encoder.name]
        library: Any = importlib.import_module(f"{layout}.models.resnet")
        block = library.Bottleneck if bottleneck else library.BasicBlock
        network: Any = library.ResNet(block, list(counts))
        network.fc = nn.Identity()
        if encoder.stem != "imagenet":
            network.conv1 = nn.Conv2d(3, 64, 3, 1 if encoder.stem == "cifar" else 2, 1, bias=False)
            network.maxpool = nn.Identity()
        return network
    channels, side = state[_class_token(layout)].shape[-1], _side(encoder, state)
    heads = encoder.heads or max(1, channels // 64)
    if layout == "timm":
        from timm.models.vision_transformer import VisionTransformer

        norm = functools.partial(nn.LayerNorm, eps=1e-6)
        return VisionTransformer(side, encoder.patch_size, embed_dim=channels, num_heads=heads, num_classes=0, norm_layer=norm)
    from torchvision.models import VisionTransformer as TorchvisionViT

    network = TorchvisionViT(side, encoder.patch_size, 12, heads, channels, 4 * channels)
    network.heads = nn.Identity()
    return network


def _ordinary(encoder: EncoderConfig, layout: str, path: Path) -> None:
    """InputError unless the library can build this ResNet."""
    wrong = []
    if encoder.norm != "batch":
        wrong.append(f"norm {encoder.norm}")
    if encoder.sk:
        wrong.append("selective kernels")
    if encoder.width != 1.0 and not (layout == "detectron2" and encoder.name in BOTTLENECKS):
        wrong.append(f"width {encoder.width:g}")
    if encoder.name == "resnet10" and layout == "detectron2":
        wrong.append("one block a stage")
    if encoder.stem != "imagenet" and layout == "detectron2":
        wrong.append(f"stem {encoder.stem}")
    if wrong:
        raise InputError(f"{path}: {layout} has no ResNet with {' and '.join(wrong)}, as this {encoder.name} has")


def _written_out(network: ViT, encoder: EncoderConfig, image_size: int, path: Path) -> Tensor:
    """1 x (1 + T) x D: the class token has no position."""
    if image_size < 1 or image_size % encoder.patch_size:
        raise InputError(
            f"--image-size {image_size}: {path} cuts images into patches of {encoder.patch_size}; take a multiple of it"
        )
    grid = image_size // encoder.patch_size
    table = positions(grid, grid, network.out_dim, network.cls_token.detach())
    return torch.cat([torch.zeros_like(table[:1]), table])[None]


@torch.no_grad()
def _compare(ours: nn.Module, other: nn.Module, state: dict[str, Tensor], side: int) -> None:
    other.load_state_dict(state)
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    expected, found = ours.eval()(images), other.eval()(images)
    if not torch.allclose(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max())):
        raise AssertionError("the exported network gives other features than ours")


def _class_token(layout: str) -> str:
    return "class_token" if layout == "torchvision" else "cls_token"


def _side(encoder: EncoderConfig, state: dict[str, Tensor]) -> int:
    """The side of the images a network takes: a ViT's is that of its positions."""
    table = state.get("pos_embed", state.get("encoder.pos_embedding"))
    return 96 if table is None else math.isqrt(table.shape[1] - 1) * encoder.patch_size


def _writable(out: Path, layout: str) -> None:
    if out.exists():
        raise InputError(f"{out}: is there already; choose another name")
    if not out.parent.is_dir():
        raise InputError(f"{out}: there is no folder {out.parent}; make it first")
    if out.suffix == ".npz" or (out.suffix == ".pkl") != (layout == "detectron2"):  # an .npz would not be read again
        wanted = ".pkl, as detectron2 reads it" if layout == "detectron2" else ".pth or .safetensors"
        raise InputError(f"{out}: a file for {layout} ends in {wanted}")


def _write(out: Path, layout: str, state: dict[str, Tensor]) -> None:
    if layout == "detectron2":
        write_pkl(out, state)
        return
    if out.suffix == ".safetensors":
        from safetensors.torch import save

        write_bytes(out, save({key: value.contiguous() for key, value in state.items()}))
        return
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_bytes(out, buffer.getvalue())


def _usage(layout: str, foreign: Foreign, state: dict[str, Tensor], file: str) -> str:
    """How the file is loaded there, as Python."""
    encoder = foreign.encoder
    if layout == "detectron2":
        depth = encoder.name.removeprefix("resnet")
        first = int(state["stem.conv1.weight"].shape[0])
        widths = "RES2_OUT_CHANNELS 64, " if encoder.name not in BOTTLENECKS else ""
        if encoder.width != 1.0:
            widths = f"STEM_OUT_CHANNELS {first}, RES2_OUT_CHANNELS {4 * first}, WIDTH_PER_GROUP {first}, "
        return (
            f"MODEL.WEIGHTS {file}; of MODEL.RESNETS: DEPTH {depth}, {widths}STRIDE_IN_1X1 False; "
            "INPUT.FORMAT RGB; MODEL.PIXEL_MEAN and MODEL.PIXEL_STD those of the training times 255"
        )
    load = f'torch.load("{file}")' if not file.endswith(".safetensors") else f'safetensors.torch.load_file("{file}")'
    if encoder.name.startswith("vit"):
        channels, side = state[_class_token(layout)].shape[-1], _side(encoder, state)
        heads = encoder.heads or max(1, channels // 64)
        if layout == "timm":
            built = (
                f"net = timm.models.VisionTransformer({side}, {encoder.patch_size}, embed_dim={channels}, num_heads={heads}, "
                "num_classes=0, norm_layer=functools.partial(torch.nn.LayerNorm, eps=1e-6))"
            )
        else:
            built = (
                f"net = torchvision.models.VisionTransformer({side}, {encoder.patch_size}, 12, {heads}, {channels}, "
                f"{4 * channels}); net.heads = torch.nn.Identity()"
            )
        return f"{built}; net.load_state_dict({load})"
    counts, bottleneck = BLOCKS[encoder.name]
    block, module = ("Bottleneck" if bottleneck else "BasicBlock"), f"{layout}.models.resnet"
    stem = ""
    if encoder.stem != "imagenet":
        stride = 1 if encoder.stem == "cifar" else 2
        stem = f"; net.conv1 = torch.nn.Conv2d(3, 64, 3, {stride}, 1, bias=False); net.maxpool = torch.nn.Identity()"
    built = f"net = {module}.ResNet({module}.{block}, {list(counts)}); net.fc = torch.nn.Identity(){stem}"
    return f"{built}; net.load_state_dict({load})"


if __name__ == "__main__":
    sys.exit(main())
