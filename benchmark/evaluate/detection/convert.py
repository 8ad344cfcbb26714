"""Our residual encoders in detectron2's layout and back: the names, and the .pkl files of its model zoo. detectron2 itself is
not needed.

    ours                                detectron2
    conv1, bn1                          stem.conv1, stem.conv1.norm
    layer1 ... layer4                   res2 ... res5
    layer1.0.conv2, layer1.0.bn2        res2.0.conv2, res2.0.conv2.norm
    layer1.0.downsample.0, .1           res2.0.shortcut, res2.0.shortcut.norm

Only the names differ where both networks are the same: batch norm, the stride of a bottleneck on its 3x3 convolution
(STRIDE_IN_1X1 False), RGB less its mean over its standard deviation. What detectron2's zoo calls MSRA is another network under
the same names, with BGR and the stride on the 1x1 convolution: its weights convert, and give features of no use.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmark.errors import InputError
from benchmark.store.record import write_bytes

_STEM = {"conv1": "stem.conv1", "bn1": "stem.conv1.norm"}
_BLOCK = {
    "conv1": "conv1", "bn1": "conv1.norm",
    "conv2": "conv2", "bn2": "conv2.norm",
    "conv3": "conv3", "bn3": "conv3.norm",
    "downsample.0": "shortcut", "downsample.1": "shortcut.norm",
}  # fmt: skip
_STAGE = re.compile(r"layer([1-4])\.(\d+)\.(.+)")
_THEIR_STAGE = re.compile(r"res([2-5])\.(\d+)\.(.+)")
_NORM = ("weight", "bias", "running_mean", "running_var")
_COUNT = "num_batches_tracked"  # that of frozen norms is not kept

# A detector has the trunk in its backbone, with C4 the last stage in its heads; the norm that MoCo has after it is not ours.
_TRUNKS = ("backbone.bottom_up.", "backbone.", "roi_heads.")
_OF_DETECTORS = re.compile(r"(backbone\.bottom_up\.|backbone\.|roi_heads\.)((stem|res[2-4])\..*|res5\.\d.*)")

Arrays = Mapping[str, Any]  # name -> Tensor or ndarray


def to_detectron2(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of one of our ResNets -> the same tensors under detectron2's names, without a prefix.

    InputError where something in it has no place there: another norm than batch, selective kernels, a convolution's bias.
    """
    named: dict[str, Tensor] = {}
    unknown = []
    for name, value in state.items():
        theirs = _their_name(name)
        if theirs is None:
            unknown.append(name)
        else:
            named[theirs] = value
    _refuse(unknown, "detectron2's ResNets have no place for")
    _whole(named, "the encoder")
    return named


def from_detectron2(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """detectron2's names -> the state dict of one of our ResNets; the counters that frozen norms lack are 0.

    A backbone alone, or a detector of which the trunk is taken and the rest left aside. InputError where something is unknown
    or missing.
    """
    if any(name.startswith(_TRUNKS) for name in state):
        found = {name: _OF_DETECTORS.fullmatch(name) for name in state}
        state = {match[2]: state[name] for name, match in found.items() if match}
    unknown = [name for name in state if _our_name(name) is None]
    _refuse(unknown, "our ResNets have no place for")
    _whole(state, "the detectron2 weights")
    named = {str(_our_name(name)): value for name, value in state.items()}
    for name in list(named):
        if name.endswith("running_mean"):
            named.setdefault(name.replace("running_mean", _COUNT), torch.zeros((), dtype=torch.int64))
    return named


def is_detectron2(names: Iterable[str]) -> bool:
    """Whether they are of a ResNet of detectron2's, alone or in a detector."""
    return any(name.removeprefix(trunk) == "stem.conv1.weight" for name in names for trunk in ("", *_TRUNKS))


def beside_trunk(names: Iterable[str]) -> list[str]:
    """Those of a detector that `from_detectron2` leaves aside."""
    names = list(names)
    of_detector = any(name.startswith(_TRUNKS) for name in names)
    return [name for name in names if of_detector and not _OF_DETECTORS.fullmatch(name)]


def write_pkl(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write detectron2-named weights as a file for `MODEL.WEIGHTS`: arrays, found in any detector by the end of their names."""
    arrays = {name: value.detach().cpu().numpy() for name, value in state.items()}
    content = {"model": arrays, "__author__": "retable", "matching_heuristics": True}
    write_bytes(path, pickle.dumps(content, protocol=4))


def read_pkl(path: Path) -> dict[str, Tensor]:
    """The tensors of such a file, or of a detector that detectron2 saved (.pth). Nothing in it is executed: InputError where
    the file holds anything but arrays and plain values, is damaged or is no such file."""
    try:
        if path.suffix == ".pkl":
            with path.open("rb") as file:
                content = _Arrays(file, encoding="latin1").load()
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); give a file of detectron2's") from None
    except Exception as error:  # a damaged pickle fails in any way
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path} is damaged, or no weights of detectron2's ({reason}); fetch or convert it again") from None
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, dict) or not model:
        raise InputError(f"{path} has no weights under 'model'; detectron2's files have")
    return {str(name): _tensor(path, name, value) for name, value in model.items()}


class _Arrays(pickle.Unpickler):
    """Unpickles numpy arrays and plain values, and calls nothing else."""

    _ALLOWED = frozenset(
        [("numpy", "ndarray"), ("numpy", "dtype"), ("collections", "OrderedDict"), ("_codecs", "encode")]
        + [(f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")]
        + [(f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")]
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"it holds {module}.{name}, and only arrays are allowed")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def _tensor(path: Path, name: str, value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value
    if not isinstance(value, np.ndarray | np.generic) or value.dtype.kind not in "fiub":
        raise InputError(f"{path}: '{name}' is a {type(value).__name__} and no array of numbers")
    return torch.from_numpy(np.array(value))  # a copy that can be written


def _their_name(name: str) -> str | None:
    module, _, leaf = name.rpartition(".")
    place = _STEM.get(module)
    if stage := _STAGE.fullmatch(module):
        inner = _BLOCK.get(stage[3])
        place = inner and f"res{int(stage[1]) + 1}.{stage[2]}.{inner}"
    return f"{place}.{leaf}" if place and _fits(place, leaf) else None


def _our_name(name: str) -> str | None:
    module, _, leaf = name.rpartition(".")
    place = next((ours for ours, theirs in _STEM.items() if theirs == module), None)
    if stage := _THEIR_STAGE.fullmatch(module):
        inner = next((ours for ours, theirs in _BLOCK.items() if theirs == stage[3]), None)
        place = inner and f"layer{int(stage[1]) - 1}.{stage[2]}.{inner}"
    return f"{place}.{leaf}" if place and _fits(module, leaf) else None


def _fits(theirs: str, leaf: str) -> bool:
    return leaf in (*_NORM, _COUNT) if theirs.endswith(".norm") else leaf == "weight"


def _refuse(names: list[str], why: str) -> None:
    if names:
        raise InputError(
            f"{why} {_some(names)}; it is a batch-norm ResNet under detectron2's or our names that converts, without its head"
        )


def _whole(theirs: Iterable[str], what: str) -> None:
    """Every convolution must have its norm, every norm its statistics, and there must be a stem and four stages."""
    have = set(theirs)
    convolutions = {name.removesuffix(".weight") for name in have if name.endswith(".weight") and ".norm." not in name}
    convolutions |= {name.split(".norm.")[0] for name in have if ".norm." in name}
    convolutions |= {"stem.conv1", *(f"res{stage}.0.conv{n}" for stage in range(2, 6) for n in (1, 2))}
    wanted = {f"{one}.{leaf}" for one in convolutions for leaf in ("weight", *(f"norm.{leaf}" for leaf in _NORM))}
    missing = sorted(wanted - have)
    if missing:
        raise InputError(f"{what} cannot be converted, these are missing under detectron2's names: {_some(missing)}")


def _some(names: list[str]) -> str:
    return f"{', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"
