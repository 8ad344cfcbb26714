"""Names that other libraries give to the tensors of the same networks. Ours are torchvision's ResNets' and timm's ViTs'.

Haiku's, of DeepMind's BYOL: `res_net50/~/block_group_0/~/block_1/~/conv_2` with `w`, where ours is `layer1.1.conv3.weight`;
convolutions lie as height x width x in x out. An .npz of them is made where the pickle is trusted:

    state = pickle.load(file)["experiment_state"]
    trees = [state.online_params, state.online_state]
    np.savez("byol.npz", **{f"{module}/{name}": x for tree in trees for module, own in tree.items() for name, x in own.items()})
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch import Tensor

_TORCHVISION_VIT = (  # torchvision's beginning or part, ours
    ("class_token", "cls_token"),
    ("conv_proj.", "patch_embed.proj."),
    ("encoder.pos_embedding", "pos_embed"),
    ("encoder.ln.", "norm."),
)
_TORCHVISION_BLOCK = (  # within encoder.layers.encoder_layer_N, within blocks.N
    ("ln_1.", "norm1."),
    ("self_attention.in_proj_", "attn.qkv."),
    ("self_attention.out_proj.", "attn.proj."),
    ("ln_2.", "norm2."),
    ("mlp.0.", "mlp.fc1."),
    ("mlp.3.", "mlp.fc2."),
)
_TORCHVISION_OLD_MLP = (("mlp.linear_1.", "mlp.0."), ("mlp.linear_2.", "mlp.3."))  # its names up to 0.12


def from_torchvision_vit(key: str) -> str:
    """`encoder.layers.encoder_layer_3.ln_1.weight` -> `blocks.3.norm1.weight`; a name that is not torchvision's as it is."""
    block = re.fullmatch(r"encoder\.layers\.encoder_layer_(\d+)\.(.+)", key)
    if block:
        inner = _swapped(block[2], _TORCHVISION_OLD_MLP)
        return f"blocks.{block[1]}.{_swapped(inner, _TORCHVISION_BLOCK)}"
    return _swapped(key, _TORCHVISION_VIT)


def to_torchvision_vit(key: str) -> str:
    """The way back."""
    block = re.fullmatch(r"blocks\.(\d+)\.(.+)", key)
    if block:
        inner = _swapped(block[2], [(ours, theirs) for theirs, ours in _TORCHVISION_BLOCK])
        return f"encoder.layers.encoder_layer_{block[1]}.{inner}"
    return _swapped(key, [(ours, theirs) for theirs, ours in _TORCHVISION_VIT])


def _swapped(key: str, pairs: Iterable[tuple[str, str]]) -> str:
    for old, new in pairs:
        if key.startswith(old):
            return new + key[len(old) :]
    return key


_HAIKU_LAYER = (
    (r".*block_group_(\d)/.*block_(\d+)/~/(conv|batchnorm)_(\d)", lambda m: f"layer{m[1]}.{m[2]}.{m[3]}{m[4]}"),
    (r".*block_group_(\d)/.*block_(\d+)/~/shortcut_(conv|batchnorm)", lambda m: f"layer{m[1]}.{m[2]}.shortcut_{m[3]}"),
    (r".*initial_(conv|batchnorm)(?:_1)?", lambda m: f"{m[1]}0"),
    (r"(?:.*/)?classifier", lambda m: "fc"),
)
_HAIKU_ASIDE = re.compile(r"(?:^|/)(projector|predictor)(/|$)")
_HAIKU_STATE = {"/~/mean_ema": "running_mean", "/~/var_ema": "running_var"}
_HAIKU_VALUE = {"w": "weight", "b": "bias", "scale": "weight", "offset": "bias", "average": ""}


def is_haiku(keys: Iterable[str]) -> bool:
    return any("block_group_" in key and "/" in key for key in keys)


def from_haiku(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """BYOL's tensors under torchvision's names and in its order of axes; heads and names that are not known keep theirs.

    Of the running statistics `average` counts; `hidden` and `counter`, of which it is made, are dropped.
    """
    made = {}
    for name, value in tensors.items():
        module, _, kind = name.rpartition("/")
        if kind in ("hidden", "counter"):
            continue
        statistic = ""
        for ending, ours in _HAIKU_STATE.items():
            if module.endswith(ending):
                module, statistic = module.removesuffix(ending), ours
        layer = None if _HAIKU_ASIDE.search(module) else _haiku_layer(module)
        if layer is None or kind not in _HAIKU_VALUE:
            made[name] = value
            continue
        if value.ndim == 4 and kind == "w":
            value = value.permute(3, 2, 0, 1)
        elif kind == "w":
            value = value.T
        else:
            value = value.reshape(-1)
        made[f"{layer}.{statistic or _HAIKU_VALUE[kind]}"] = value.contiguous()
    return made


def _haiku_layer(module: str) -> str | None:
    """`.../block_group_0/~/block_1/~/conv_2` -> `layer1.1.conv3`: torchvision counts stages and layers from 1."""
    for pattern, name in _HAIKU_LAYER:
        if found := re.fullmatch(pattern, module):
            made = name(found)
            made = re.sub(r"^layer(\d)", lambda m: f"layer{int(m[1]) + 1}", made)
            made = re.sub(r"(conv|batchnorm)(\d)$", lambda m: f"{m[1]}{int(m[2]) + 1}", made)
            made = made.replace("shortcut_conv", "downsample.0").replace("shortcut_batchnorm", "downsample.1")
            return made.replace("batchnorm", "bn")
    return None
