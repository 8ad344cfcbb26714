"""Whether a protocol can be carried out on a cell at all, told from its config: before a network is trained for it, not after.

What only the images or the trained network tell, the evaluation itself refuses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_VIT_BLOCKS = 12  # of each of the encoders named vit_...


def unsuitable(protocol: Mapping[str, Any], config: Mapping[str, Any]) -> str | None:
    """Why the protocol cannot be carried out on a cell of this config, and what to change, in one sentence; None if it can."""
    name, encoder, seen = protocol["name"], str(config["encoder"]["name"]), _channels(config)
    if (chosen := _chosen(protocol)) and not config["data"]["held_out"]:
        return f"{name} chooses {chosen} on held-out images, but data.held_out is 0; set it above 0"
    if name == "attention" and not encoder.startswith("vit_"):
        return f"only a ViT has attention maps, and encoder.name is {encoder}; take vit_tiny, vit_small or vit_base"
    if name.startswith("detection") and not encoder.startswith("resnet"):
        return f"{name} needs the stages of a ResNet, and encoder.name is {encoder}; take one named resnet..."
    if protocol.get("engine") == "detectron2" and (other := _beyond_detectron2(config["encoder"])):
        return f"{name}: detectron2's ResNets have batch norms alone, and this encoder has {other}; set engine to builtin"
    if (name == "attention" or name.startswith("detection")) and seen != ["rgb"]:
        return f"{name} shows the network rgb photos, and this one sees {' and '.join(seen)}; drop it here"
    if encoder.startswith("vit_") and protocol.get("blocks", 0) > _VIT_BLOCKS:
        return f"{name}.blocks is {protocol['blocks']}, and {encoder} has {_VIT_BLOCKS}; lower it"
    return None


def _chosen(protocol: Mapping[str, Any]) -> str:
    """What a protocol, or its teacher, chooses among several of."""
    chooser = protocol.get("teacher", protocol)
    if "l2_step" in chooser:
        return "its l2"
    several = [key for key in ("ks", "temperatures", "learning_rates") if len(set(chooser.get(key, ()))) > 1]
    if any(epochs < chooser["epochs"] for epochs in chooser.get("shorter", ())):
        several.append("shorter")
    return f"among its {' and '.join(several)}" if several else ""


def _beyond_detectron2(encoder: Mapping[str, Any]) -> str:
    """What a ResNet has that detectron2 cannot build; nothing where it can."""
    if encoder.get("sk"):
        return "selective kernels"
    norm = encoder.get("norm", "batch")
    return "" if norm == "batch" else f"norm {norm}"


def _channels(config: Mapping[str, Any]) -> list[str]:
    """The colour spaces of the views that the encoder sees of one image: several where it takes modalities."""
    views = config.get("views") or [{}]
    return [view.get("channels", "rgb") for number, view in enumerate(views) if number == 0 or view.get("same_draws")]
