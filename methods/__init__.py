"""What is trained: one file per method, plain PyTorch, usable without the rest of the project.

Importing this package does not import torch, so that planning and reporting stay quick; `load` does.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from methods.base import Method

# name -> "module:class". An explicit list: a method exists when it is written here, nothing is scanned.
METHODS: dict[str, str] = {
    "barlow": "methods.barlow:BarlowTwins",
    "byol": "methods.byol:BYOL",
    "cmc": "methods.cmc:CMC",
    "contrastive": "methods.contrastive:Contrastive",
    "cpc": "methods.cpc:CPC",
    "cpcv2": "methods.cpcv2:CPCv2",
    "deepcluster": "methods.deepcluster:DeepCluster",
    "deepclusterv2": "methods.deepclusterv2:DeepClusterV2",
    "dino": "methods.dino:DINO",
    "infomin": "methods.infomin:InfoMin",
    "instdisc": "methods.instdisc:InstDisc",
    "invaspread": "methods.invaspread:InvaSpread",
    "mocov1": "methods.moco:MoCoV1",
    "mocov2": "methods.moco:MoCoV2",
    "mocov3": "methods.mocov3:MoCoV3",
    "random": "methods.random:RandomInit",
    "simclr": "methods.simclr:SimCLR",
    "simclrv2": "methods.simclrv2:SimCLRv2",
    "simsiam": "methods.simsiam:SimSiam",
    "supervised": "methods.supervised:Supervised",
    "swav": "methods.swav:SwAV",
    "vicreg": "methods.vicreg:VICReg",
}


def load(name: str) -> type[Method]:
    """The class of a method. Imports torch. Raises ValueError for a name that is not in METHODS."""
    if name not in METHODS:
        raise ValueError(f"unknown method '{name}'; the methods are {', '.join(sorted(METHODS))}")
    module, attribute = METHODS[name].split(":")
    return getattr(importlib.import_module(module), attribute)
