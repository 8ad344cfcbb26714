"""From the words of the command line to actions: which sweeps at which scale, the images at hand, the cells that are meant."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from benchmark.cli import overrides_of, seeds_of
from benchmark.data.boxes import BoxSource
from benchmark.data.convert import Progress
from benchmark.data.datasets import Dataset, Source
from benchmark.errors import InputError
from benchmark.launch.cluster import Cluster, read_cluster
from benchmark.launch.given import find_boxes, given_data, prepare_images
from benchmark.launch.machine import Resources, resources
from benchmark.plan.document import leaves, scalar
from benchmark.plan.plan import Action, Known, planned
from benchmark.plan.shared import Alone, alone, sweeps_of, together, wanted_elsewhere
from benchmark.plan.sweep import DataIdentity, Row, Sweep, box_names, data_names, load_sweep
from benchmark.store.store import Store

SWEEPS = Path("sweeps")
Converting = Callable[[Source], AbstractContextManager[Progress]]


@dataclass(frozen=True)
class Asked:
    """What a call is about: sweeps at one profile, with the images at hand. without: the files that have no such profile."""

    args: argparse.Namespace
    sweeps: tuple[Sweep, ...]
    without: tuple[str, ...]
    profile: str
    why: str  # this profile
    machine: Resources
    store: Store
    cache: Path
    given: Mapping[str, Path]  # data set -> where the user says it lies
    datasets: Mapping[str, Dataset]  # the name a config asks for -> the images at hand
    boxes: Mapping[str, BoxSource]
    notices: tuple[str, ...]

    @cached_property
    def identities(self) -> dict[str, DataIdentity]:
        return {name: DataIdentity(one.name, one.content, one.counts["train"]) for name, one in self.datasets.items()}

    @cached_property
    def contents(self) -> dict[str, str]:
        return {name: source.content for name, source in self.boxes.items()}

    @cached_property
    def cluster(self) -> Cluster | None:
        """The cluster that the cells would run on, if it is not this machine."""
        given = self.args.launcher == "slurm" and self.args.cluster is not None
        return read_cluster(self.args.cluster) if given else None

    @property
    def device(self) -> str:
        """Whose time is priced: `cuda` or `cpu`. A login node without a GPU says nothing of the cluster behind it."""
        if self.cluster is not None:
            return "cuda" if self.cluster.ask.gpus else "cpu"
        return self.machine.device

    def rows(self, more: Mapping[str, list[int]] | None = None) -> list[tuple[Sweep, list[Row]]]:
        """The rows of each sweep that are meant. more: row -> random seeds beside those that it has."""
        every = [(sweep, self._expanded(sweep, seeds_of(self.args.seeds))) for sweep in self.sweeps]
        for row, seeds in (more or {}).items():
            for sweep, rows in every:
                extra = {found.name: found.cells for found in self._expanded(sweep, seeds)}
                rows[:] = [Row(one.name, one.cells + extra[row]) if one.name == row else one for one in rows]
        return _chosen(every, self.args)

    def _expanded(self, sweep: Sweep, seeds: list[int] | None) -> list[Row]:
        return sweep.expand(self.profile, self.identities, seeds, overrides_of(self.args.overrides), self.contents)

    def known(self) -> Known:
        """What the store holds now."""
        return Known.read(self.store, self.device, {one.name: one.counts for one in self.datasets.values()})

    def actions(self, known: Known, queued: Mapping[str, str], more: Mapping[str, list[int]] | None = None) -> list[Action]:
        """What is to be done, cell by cell: those that --cell and --only let through, with --first the first one to work on."""
        if self.args.all:
            rows, shared = together(self.rows(more))
        else:
            ((sweep, rows),) = self.rows(more)
            shared = {}
        # Where a cell stands does not depend on what --mode would do with it.
        actions = _selected(planned(rows, known, "cached" if self.args.status else self.args.mode, queued), self.args)
        if self.args.plan and not self.args.all:  # whoever only looks may wait for the other sweeps to be read
            cells = [action.cell.id for action in actions]
            shared = wanted_elsewhere(sweep, self.profile, cells, self.identities, self.contents)
        if self.args.first:
            actions = [action for action in actions if action.works][:1]
        return [replace(action, shared=shared.get(action.cell.id, ())) for action in actions]

    def alone(self, known: Known, queued: Mapping[str, str]) -> list[Alone]:
        """What each sweep would take without the others, of those that have a cell which is meant."""
        every = [(sweep, _matching(planned(rows, known, self.args.mode, queued), self.args)) for sweep, rows in self.rows()]
        return [alone(sweep.path.name, actions) for sweep, actions in every if actions]


def ask(args: argparse.Namespace, converting: Converting | None, until: float | None) -> Asked:
    """What the words mean. converting: shows the progress of a conversion; None only looks. until: when the time is up."""
    machine = resources(args.jobs, args.threads, args.ranks)
    sweeps, without, profile, why = _sweeps(args, machine)
    looking = converting is None
    store = Store(args.store, create=not looking)
    cache = Path(os.environ.get("RETABLE_CACHE") or args.store / "data")
    seeds, overrides = seeds_of(args.seeds), overrides_of(args.overrides)
    every = [(sweep, sweep.expand(profile, None, seeds, overrides)) for sweep in sweeps]
    provisional = [row for _, rows in _chosen(every, args) for row in rows]
    names, of_boxes = data_names(provisional), box_names(provisional)
    given, remark = _given(args, names, of_boxes, looking)
    boxes, notices = find_boxes(of_boxes, given, cache, looking)  # before anything is converted: it fails in no time
    datasets, more = prepare_images(names, given, cache, converting, until)
    kept = {name: path for name, path in given.items() if name in names}
    return Asked(
        args,
        tuple(sweeps),
        tuple(without),
        profile,
        why,
        machine,
        store,
        cache,
        kept,
        datasets,
        boxes,
        (*remark, *more, *notices),
    )


def _given(args: argparse.Namespace, names: list[str], of_boxes: list[str], looking: bool) -> tuple[dict[str, Path], list[str]]:
    """Where the user says the data lie; and what to say. Whoever only looks at all sweeps need not say which set a path is."""
    try:
        return given_data(args.data, names, of_boxes), []
    except InputError as error:
        if not (args.all and looking):
            raise
        return {}, [str(error)]


def _sweeps(args: argparse.Namespace, machine: Resources) -> tuple[list[Sweep], list[str], str, str]:
    """(the sweeps, files that lack the profile, the profile, why this one)."""
    if not args.all:
        if args.sweep is None:
            raise InputError("no sweep is named; write python -m benchmark.run sweeps/NAME.yaml, or --all")
        sweep = load_sweep(args.sweep)
        profile, why = _profile(args.profile, machine)
        sweep.about(profile)  # raises for an unknown profile
        return [sweep], [], profile, why
    folder = SWEEPS
    if args.sweep is not None and "=" in str(args.sweep):  # with --all there is no sweep to be named before the settings
        args.overrides.insert(0, str(args.sweep))
    elif args.sweep is not None:
        if not args.sweep.is_dir():
            raise InputError(f"{args.sweep}: --all takes every sweep of a folder, {SWEEPS}/ unless another is named; drop it")
        folder = args.sweep
    profile, why = _profile(args.profile, machine)
    sweeps, without = sweeps_of(folder, profile)
    return sweeps, without, profile, why


def _profile(asked: str | None, machine: Resources) -> tuple[str, str]:
    if asked and asked != "auto":
        return asked, "as asked"
    if machine.device == "cuda":
        return "cifar10", "this machine has a CUDA device; the papers' scale is --profile imagenet"
    return "smoke", "no CUDA device here; --profile cpu learns more, --profile cifar10 wants a GPU"


def _chosen(every: list[tuple[Sweep, list[Row]]], args: argparse.Namespace) -> list[tuple[Sweep, list[Row]]]:
    """The rows that `--only row=NAME` asks for, or all; of several sweeps those that have such a row."""
    wanted = [value for key, _, value in (text.partition("=") for text in args.only) if key == "row"]
    if not wanted:
        return every
    known = [row.name for _, rows in every for row in rows]
    for name in wanted:
        if name.lower() not in map(str.lower, known):
            some = f"the rows are {', '.join(known)}" if len(every) == 1 else f"none of {len(every)} sweeps has it"
            raise InputError(f"--only row={name}: no such row; {some}")
    chosen = [(sweep, [row for name in wanted for row in rows if row.name.lower() == name.lower()]) for sweep, rows in every]
    return [(sweep, rows) for sweep, rows in chosen if rows]


def _selected(plan: list[Action], args: argparse.Namespace) -> list[Action]:
    """The cells that --cell and --only let through. None at all is an error."""
    selected = _matching(plan, args)
    if not selected:
        asked = " ".join([*(f"--cell {cell}" for cell in args.cell), *(f"--only {text}" for text in args.only)])
        raise InputError(f"{asked}: none of the {len(plan)} cells matches; --plan lists them")
    return selected


def _matching(plan: list[Action], args: argparse.Namespace) -> list[Action]:
    """A cell without the setting that --only names does not match it."""
    conditions = {}
    for text in args.only:
        key, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--only {text}: expected KEY=VALUE such as seed=0 or row=NAME")
        if key != "row":
            conditions[key] = scalar(value)
    if not conditions and not args.cell:
        return plan
    selected = []
    for action in plan:
        found = {".".join(path): leaf for path, leaf in leaves(action.cell.config)}
        named = not args.cell or any(action.cell.id.startswith(wanted) for wanted in args.cell)
        if named and all(key in found and found[key] == value for key, value in conditions.items()):
            selected.append(action)
    return selected


def label(action: Action) -> str:
    """`GN + WS (+1), seed 0`: for people."""
    more = f" (+{len(action.rows) - 1})" if len(action.rows) > 1 else ""
    return f"{action.rows[0]}{more}, seed {action.cell.seed}"


def problems(actions: Iterable[Action], known: Known) -> list[str]:
    """A sentence for every file of these cells that cannot be read."""
    found = (known.cells[action.cell.id] for action in actions if action.cell.id in known.cells)
    return [problem for cell in found for problem in cell.problems]
