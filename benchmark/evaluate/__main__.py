"""python -m benchmark.evaluate FILE --protocol knn linear ...: any protocol on somebody else's checkpoint.

The file is opened without running anything in it, its encoder is built here, and all of its tensors must fit. Each protocol
leaves a record in --out; one that is finished is not repeated, one that was stopped goes on.
Exit codes: 0 all measured, 1 something failed, 2 bad input, 4 stopped with work left.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import logging
import math
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmark import console
from benchmark.data import split_labels
from benchmark.data.boxes import NAMES as BOXES
from benchmark.data.boxes import BoxSource
from benchmark.data.datasets import Dataset
from benchmark.data.split import split
from benchmark.errors import InputError, nearest
from benchmark.evaluate import show
from benchmark.evaluate.foreign import Foreign, check, open_foreign
from benchmark.evaluate.layouts import NAMES as LAYOUTS
from benchmark.evaluate.measure import Asked, Troubles, measure
from benchmark.evaluate.subject import Subject
from benchmark.evaluate.weights_file import WeightsFile, read_weights
from benchmark.launch.given import find_boxes, given_data, prepare_images
from benchmark.launch.machine import Resources, cores, resources
from benchmark.plan.cell import Evaluation, digest
from benchmark.plan.document import scalar
from benchmark.plan.evaluations import Protocol, boxes_of, on_cell, read_protocols
from benchmark.plan.protocols import PROTOCOLS
from benchmark.plan.schema import check_value
from benchmark.store.owner import Claim, Replaced
from benchmark.store.provenance import provenance
from benchmark.store.record import read_record, storage_error
from benchmark.train.stop import Stopped, StopRequest
from methods.catalogue import CATALOGUE

OK, FAILED, BAD_INPUT, STOPPED = 0, 1, 2, 4
# Of the pixels, in [0, 1]: (mean, standard deviation) of red, green and blue. `half` is that of many of timm's ViTs,
# `none` SimCLR's.
NORMALIZATIONS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmark.evaluate",
        description="Measure somebody else's checkpoint by any protocol; run it again to resume. Without --protocol, only say "
        "what is in the file.",
        epilog="exit codes: 0 all measured, 1 something failed, 2 bad input, 4 stopped with work left",
    )
    parser.add_argument("file", type=Path, help="a checkpoint: torch, .safetensors or .npz")
    parser.add_argument("--layout", default="auto", metavar="NAME", help=f"{', '.join(LAYOUTS)} (default: auto)")
    parser.add_argument("--protocol", nargs="+", default=[], metavar="NAME", help=", ".join(PROTOCOLS))
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="PROTOCOL.KEY=VALUE",
                        help="a setting of a protocol, e.g. knn.k=20")  # fmt: skip
    parser.add_argument("--encoder", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
                        help="what the file does not say of the encoder, e.g. heads=12")  # fmt: skip
    parser.add_argument("--dataset", metavar="NAME", help="the images; default: the cell's, else the one that --data names")
    parser.add_argument("--data", action="append", metavar="[NAME=]PATH",
                        help="images or detection data, as of benchmark.run; default: RETABLE_DATA")  # fmt: skip
    parser.add_argument("--image-size", type=int, metavar="PIXELS", help="side of the images; default: the cell's; the data "
                        "set's where it is below 128, else 224")  # fmt: skip
    parser.add_argument("--normalize", choices=(*NORMALIZATIONS, "dataset"), help="of the pixels; default: imagenet; dataset "
                        "(its own mean and deviation) for checkpoints of Retable's")  # fmt: skip
    parser.add_argument("--train-images", type=int, metavar="N", help="a fixed, stratified part of them; default: all")
    parser.add_argument("--test-images", type=int, metavar="N", help="likewise")
    parser.add_argument("--held-out", type=float, metavar="SHARE", help="of the training images, for choices; default: 0.1")
    parser.add_argument("--seed", type=int, help="random seed of what is trained; default: the cell's, else 0")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: a GPU if there is one")
    parser.add_argument("--threads", type=int, help="on a CPU; default: one for each core")
    parser.add_argument("--loader", choices=("auto", "ffcv", "torch", "resident"), default="auto")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="for the records; default: FILE.evaluations beside the file")
    parser.add_argument("--again", action="store_true", help="measure anew what has a record")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments(argv)
    try:
        return _main(args)
    except InputError as error:
        console.error(str(error))
        return BAD_INPUT
    except (Stopped, Replaced, KeyboardInterrupt) as stopped:
        console.error(f"{stopped or 'interrupted'}; start the same command again, it goes on from here")
        return STOPPED


def _main(args: argparse.Namespace) -> int:
    if args.layout not in LAYOUTS:
        raise InputError(f"--layout {args.layout}: unknown; allowed: {', '.join(LAYOUTS)}{nearest(args.layout, LAYOUTS)}")
    protocols = _protocols(args.protocol, args.set)
    file = read_weights(args.file)
    foreign = open_foreign(file, args.layout, encoder_settings(args.encoder))
    show.lines([("file", f"{file.path.name}, sha256 {file.sha256[:12]}"), *show.about(foreign)])
    show.match(foreign)
    check(foreign, file.path)
    if not protocols:
        show.say("All of it fits. Name what to measure with --protocol.")
        return OK
    machine = _machine(args)
    setup = _setup(args, foreign, protocols)
    show.lines(setup.rows)
    show.say("")
    out = args.out or file.path.with_name(f"{file.path.name}.evaluations")
    return _measure(args, file, foreign, setup, machine, out)


@dataclass(frozen=True)
class _Setup:
    """What is measured on what. protocols: as they are carried out here. rows: for people."""

    dataset: Dataset
    boxes: dict[str, BoxSource]
    data: dict[str, Any]
    protocols: tuple[Protocol, ...]
    seed: int
    rows: list[tuple[str, str]]


def _setup(args: argparse.Namespace, foreign: Foreign, protocols: tuple[Protocol, ...]) -> _Setup:
    cell = foreign.data or {}
    of_boxes = list(dict.fromkeys(name for protocol in protocols if (name := boxes_of(protocol))))
    only_boxes = all(boxes_of(protocol) for protocol in protocols)
    name, why = _dataset_name(args, cell, only_boxes)
    given = given_data(args.data, [name], of_boxes)
    cache = Path(os.environ.get("RETABLE_CACHE") or Path(os.environ.get("RETABLE_STORE") or "runs") / "data")
    boxes, notices = find_boxes(of_boxes, given, cache, looking=False)
    datasets, more = prepare_images([name], given, cache, console.converting)
    dataset = datasets[name]
    same = cell if cell.get("content") == dataset.content else {}
    own_size = same.get("image_size") or (dataset.size if 0 < dataset.size < 128 and not only_boxes else 224)
    size = own_size if args.image_size is None else args.image_size
    patch = foreign.encoder.patch_size if foreign.encoder.name.startswith("vit") else 1
    if size < 1:
        raise InputError(f"--image-size {size}: must be at least 1")
    if size % patch:
        raise InputError(
            f"--image-size {size}: the ViT of this file cuts images into patches of {patch}; take a multiple of it"
        )
    normalize = args.normalize or ("dataset" if foreign.method else "imagenet")
    if normalize != "dataset":
        mean, std = NORMALIZATIONS[normalize]
        dataset = dataclasses.replace(dataset, mean=mean, std=std)
    said = {key: getattr(args, key) for key in ("train_images", "test_images", "held_out")}
    parts = {key: same.get(key, {"held_out": 0.1}.get(key, 0)) if value is None else value for key, value in said.items()}
    for key, value in parts.items():
        if not 0 <= value < (1 if key == "held_out" else math.inf):  # what is no number neither
            allowed = "at least 0 and below 1" if key == "held_out" else "at least 0"
            raise InputError(f"--{key.replace('_', '-')} {value}: must be {allowed}")
    data = {"name": dataset.name, "content": dataset.content, "image_size": size, **parts,
            "mean": list(dataset.mean), "std": list(dataset.std)}  # fmt: skip
    contents = {name: source.content for name, source in boxes.items()}
    counts = ", ".join(_taken(part, parts[f"{part}_images"], count) for part, count in dataset.counts.items())
    rows = [("images", f"{dataset.name}, {counts}, {size} x {size} pixels{why}"), ("pixels", f"normalized as {normalize}")]
    rows += [("boxes", f"{source.name}, content {source.content}") for source in boxes.values()]
    rows += [("notice", notice) for notice in [*more, *notices]]
    if foreign.encoder.name.startswith("resnet") and foreign.encoder.stem == "imagenet" and size < 96 and not only_boxes:
        side = -(-size // 32)
        words = f"of {size} pixels this ResNet's last maps have {side} x {side}; --image-size 224 enlarges the images"
        rows.append(("notice", words))
    seed = args.seed if args.seed is not None else foreign.seed or 0
    return _Setup(dataset, boxes, data, on_cell(protocols, {"data": data}, contents, dataset.counts["train"]), seed, rows)


def _taken(part: str, asked: int, count: int) -> str:
    """How many images of a part are used, 0 asking for all."""
    return f"{asked:,} {part} (of {count:,})" if 0 < asked < count else f"{count:,} {part}"


def _dataset_name(args: argparse.Namespace, cell: dict[str, Any], only_boxes: bool) -> tuple[str, str]:
    """Which images, and why where nobody said so."""
    if args.dataset:
        return args.dataset, ""
    if cell:
        return str(cell["name"]), ", those of its cell"
    named = [name for name, equals, _ in (text.partition("=") for text in args.data or []) if equals and name not in BOXES]
    if len(named) == 1 and "/" not in named[0]:
        return named[0], ""
    if only_boxes:
        return "shapes", ", which no protocol here looks at"
    raise InputError(
        "which images? name them with --dataset, such as cifar10 or imagenet, and give their place with --data NAME=PATH"
    )


def _measure(
    args: argparse.Namespace, file: WeightsFile, foreign: Foreign, setup: _Setup, machine: Resources, out: Path
) -> int:
    dataset, data, device = setup.dataset, setup.data, torch.device(machine.device)
    if device.type == "cpu":
        torch.set_num_threads(machine.threads)
    encoder = dataclasses.asdict(foreign.encoder)
    identity = {"sha256": file.sha256, "layout": foreign.layout, "encoder": encoder, "data": data, "seed": setup.seed}
    subject_id = f"{foreign.layout}-{digest(identity)}"
    evaluations = [Evaluation(subject_id, protocol) for protocol in setup.protocols]
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: cannot be made ({error.strerror}); choose another folder with --out") from error
    have = {} if args.again else _finished(out, evaluations)
    wanted = [Asked(one.id, one.protocol) for one in evaluations if one.id not in have]
    before = _written(out, evaluations)
    stop = StopRequest()
    stop.listen(signal.SIGTERM, signal.SIGINT)
    claim = Claim.take(out)
    if claim is None:
        raise InputError(f"{out}: another process measures into this folder; wait for it or choose another with --out")
    claim.keep_alive()
    try:
        with show.Work() as work, _log(out) as log:
            subject = Subject(
                foreign.network.to(device, memory_format=torch.channels_last).eval(),  # type: ignore[call-overload]
                dataset,
                split(split_labels(dataset, "train"), split_labels(dataset, "test"), data["train_images"], data["test_images"],
                      data["held_out"]),
                data["image_size"], foreign.channels, device, setup.seed, machine.workers, args.loader, stop, work.goes_on,
                claim.check, functools.partial(_opened, setup.boxes), log,
            )  # fmt: skip
            gpu = torch.cuda.get_device_name() if device.type == "cuda" else None
            told = {
                "cell": subject_id,
                "checkpoint": {
                    "file": file.path.name, "sha256": file.sha256, "layout": foreign.layout, "encoder": encoder,
                    "method": foreign.method, "step": foreign.step, "taken": len(foreign.match.matched),
                    "left_aside": len(foreign.match.aside),
                },
                "data": data,
                "seed": setup.seed,
                "provenance": provenance(device.type, gpu, machine.threads),
            }  # fmt: skip
            troubles = measure(subject, wanted, out, told, work.begins)
    except BaseException as error:
        claim.release("stopped", str(error))
        raise
    claim.release("done")
    made = {name for name, written in _written(out, evaluations).items() if written != before.get(name)}
    show.results(list(_finished(out, evaluations).values()), made)
    show.say(f"\nrecords in {out}")
    return _told(troubles, out)


def _told(troubles: Troubles, out: Path) -> int:
    for sentence in troubles.refused:
        console.error(sentence)
    for error in troubles.failed:
        console.error(f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}; {out / 'log.txt'} has all of it")
    return FAILED if troubles.failed else BAD_INPUT if troubles.refused else OK


def _finished(out: Path, evaluations: Sequence[Evaluation]) -> dict[str, dict[str, Any]]:
    """The records that are there, by id, in the order asked for."""
    paths = {one.id: out / f"{one.id}.json" for one in evaluations}
    return {name: read_record(path) for name, path in paths.items() if path.exists()}


def _written(out: Path, evaluations: Sequence[Evaluation]) -> dict[str, int]:
    """When each record that is there was written, whatever it holds."""
    paths = {one.id: out / f"{one.id}.json" for one in evaluations}
    return {name: path.stat().st_mtime_ns for name, path in paths.items() if path.exists()}


def _opened(boxes: dict[str, BoxSource], name: str) -> Any:
    if name not in boxes:
        raise InputError(f"the detection data set {name} is not known here; give it with --data {name}=PATH")
    return boxes[name].open()


class _log:
    """The log of a folder, open while it is written to."""

    def __init__(self, out: Path) -> None:
        self.path = out / "log.txt"

    def __enter__(self) -> logging.Logger:
        self.log = logging.getLogger("retable.evaluate")
        self.log.setLevel(logging.INFO)
        self.log.propagate = False
        try:
            self.handler = logging.FileHandler(self.path)
        except OSError as error:
            raise storage_error(self.path, error) from error
        self.handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        self.log.addHandler(self.handler)
        return self.log

    def __exit__(self, *exception: object) -> None:
        self.log.removeHandler(self.handler)
        self.handler.close()


def _machine(args: argparse.Namespace) -> Resources:
    if args.threads is not None and args.threads < 1:
        raise InputError(f"--threads {args.threads}: must be at least 1")
    found = resources(1, args.threads or cores())
    if args.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: PyTorch finds no CUDA device here")
    if args.device == "cpu" or not torch.cuda.is_available():
        return dataclasses.replace(found, device="cpu", threads=args.threads or cores(), workers=0, gpus=())
    return found


def _protocols(names: list[str], settings: list[str]) -> tuple[Protocol, ...]:
    """The protocols asked for with their settings, checked as those of a sweep are."""
    wanted: dict[str, dict[str, Any]] = {name: {} for name in names}
    if len(wanted) < len(names):
        raise InputError("--protocol: one is named twice; keep one")
    for text in settings:
        path, equals, value = text.partition("=")
        name, *keys = path.split(".")
        if not equals or not keys or not all(keys):
            raise InputError(f"--set {text}: expected PROTOCOL.KEY=VALUE such as knn.k=20")
        if name not in wanted:
            raise InputError(f"--set {text}: '{name}' is not among --protocol {' '.join(names)}{nearest(name, names)}")
        inner = wanted[name]
        for key in keys[:-1]:
            inner = inner.setdefault(key, {})
            if not isinstance(inner, dict):
                raise InputError(f"--set {text}: '{key}' is both a value and a section here")
        inner[keys[-1]] = _value(value)

    def where(path: tuple[str, ...]) -> str:
        return f"--set {'.'.join(path)}" if len(path) > 1 else " ".join(["--protocol", *path])

    return read_protocols(wanted, where)


def encoder_settings(settings: list[str]) -> dict[str, Any]:
    """What `--encoder KEY=VALUE ...` says, checked."""
    said = {}
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--encoder {text}: expected KEY=VALUE such as name=resnet50")
        said[key] = _value(value)
    spec = {"type": "section", **CATALOGUE()["encoder"]}
    checked: dict[str, Any] = check_value(said, spec, (), lambda path: f"--encoder {'.'.join(path)}")
    return checked


def _value(text: str) -> Any:
    """A word or number as in a sweep file, or a list of them: [0.1, 0.2]."""
    if text.startswith("[") and text.endswith("]"):
        return [scalar(part.strip()) for part in text[1:-1].split(",") if part.strip()]
    return scalar(text)


if __name__ == "__main__":
    sys.exit(main())
