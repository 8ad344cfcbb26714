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
    "byol": "methods.byol:BYOL",
    "contrastive": "methods.contrastive:Contrastive",
    "random": "methods.random:RandomInit",
    "supervised": "methods.supervised:Supervised",
}


def load(name: str) -> type[Method]:
    """The class of a method. Imports torch. Raises ValueError for a name that is not in METHODS."""
    if name not in METHODS:
        raise ValueError(f"unknown method '{name}'; the methods are {', '.join(sorted(METHODS))}")
    module, attribute = METHODS[name].split(":")
    return getattr(importlib.import_module(module), attribute)
