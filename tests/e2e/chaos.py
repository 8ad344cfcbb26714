"""A sweep of tiny cells that is killed again and again, at moments when work is under way, until it is done all the same.

`python -m tests.e2e.chaos --kills 200` (`make chaos`) prints what was killed and what became of it; the test suite calls
`chaos` with fewer kills. A kill is SIGKILL: to a worker, to the runner with all its workers (a power cut), or to the runner
alone. When to kill is decided by what the store shows, by a seeded choice among the things that can be under way:
a claim, a training step, a checkpoint being written, a record being written, an evaluation.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from benchmark.store.owner import process_start
from benchmark.store.record import read_json, read_record
from tests.e2e.conftest import Project

SWEEP = """
question: Does a sweep survive two hundred kills?
base:
  method: byol
  encoder: {name: convnet, width: 0.25}
  projector: {hidden: 16, out: 8}
  predictor: {hidden: 16, out: 8}
  data: {name: shapes, train_images: 160, test_images: 80, image_size: 16}
  optimizer: {learning_rate: 0.05}
  epochs: 6
  batch_size: 8
  queue: 16
rows:
  byol: {}
  contrastive: {method: contrastive}
  byol slow: {target_ema: 0.9}
  random: {method: random}
seeds: [SEEDS]
evaluate: {knn: {k: 5}, linear: {l2_low: -2, l2_high: -1}}
profiles: {smoke: {}}
"""
STAGES = ("claim", "training", "checkpoint", "record", "evaluation")
TARGETS = ("worker",) * 8 + ("all", "runner")  # a runner costs a start of everything
Tell = Callable[[str], None]
_PATIENCE = 20.0  # seconds to wait for the wished moment; then any moment will do


def project_in(folder: Path, cache: Path, seeds: int) -> Project:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sweep.yaml").write_text(SWEEP.replace("SEEDS", ", ".join(map(str, range(seeds)))))
    return Project(folder, cache)


def start(project: Project) -> subprocess.Popen[bytes]:
    """The runner with two workers, checkpoints at nearly every step; what it prints goes to a file."""
    with (project.folder / "output.txt").open("ab") as output:
        environment = project.environment(RETABLE_CHECKPOINT_SECONDS="0.05")
        command = project.command("--jobs", "2")
        return subprocess.Popen(command, cwd=Path(__file__).parents[2], env=environment, stdout=output, stderr=output)


def workers_of(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if fields[1] == str(pid) and fields[0] not in "ZX":
                found.append(int(path.parent.name))
    return found


def holders(project: Project) -> dict[int, Path]:
    """Process number -> the cell that it has in hand, of every worker that has one."""
    found = {}
    for path in project.store.glob("cells/*/owner.json"):
        with suppress(Exception):
            owner = read_json(path)
            if not owner.get("released") and process_start(owner["pid"]) == owner["process_start"]:
                found[owner["pid"]] = path.parent
    return found


def under_way(stage: str, cell: Path) -> bool:
    """Whether this is what the cell is at, by its files alone."""
    if stage == "claim":
        return not (cell / "checkpoint.pt").exists() and not (cell / "metrics.jsonl").exists()
    if stage == "training":
        return (cell / "checkpoint.pt").exists() and not (cell / "record.json").exists()
    if stage == "checkpoint":
        return any(cell.glob(".checkpoint.pt.*.tmp"))
    if stage == "record":
        return any(cell.glob(".record.json.*.tmp")) or any(cell.glob("evaluations/.*.json.*.tmp"))
    return (cell / "record.json").exists()


class Chaos:
    """Kills until enough has been killed, then lets the sweep come to its end. Done before that, it is begun anew elsewhere."""

    def __init__(
        self, folder: Path, cache: Path, seeds: int, seed: int, tell: Callable[[str], None] = lambda text: None
    ) -> None:
        self.folder, self.cache, self.seeds, self.tell = folder, cache, seeds, tell
        self.choose = random.Random(seed)
        self.done: Counter[str] = Counter()  # "worker during checkpoint" -> how often
        self.starts = 0
        self.projects: list[Project] = []
        self.written: dict[Path, int] = {}  # record -> when it was written, as first seen
        self.rewritten: set[Path] = set()

    @property
    def count(self) -> int:
        return sum(self.done.values())

    def run(self, kills: int) -> None:
        while self.count < kills:
            self.project = project_in(self.folder / f"wild-{len(self.projects)}", self.cache, self.seeds)
            self.projects.append(self.project)
            self._to_its_end(kills)

    def _to_its_end(self, kills: int) -> None:
        code = None
        while code != 0:
            process = start(self.project)
            self.starts += 1
            while process.poll() is None and self.count < kills:
                self._kill_one(process)
            code = process.wait(timeout=600)
            self._note_records()
            assert code in (0, 1, -signal.SIGKILL), (self.project.folder / "output.txt").read_text()[-3000:]
            assert self.starts <= 3 * kills, f"the sweep does not come to its end: {self.done}"

    def _note_records(self) -> None:
        """A record is written once: whoever kills after that must not make anybody write it again."""
        for path in [*self.project.store.glob("cells/*/record.json"), *self.project.store.glob("cells/*/evaluations/*.json")]:
            written = path.stat().st_mtime_ns
            if self.written.setdefault(path, written) != written:
                self.rewritten.add(path)

    def _kill_one(self, process: subprocess.Popen[bytes]) -> None:
        stage, target = self.choose.choice(STAGES), self.choose.choice(TARGETS)
        pid, stage = self._wait_for(stage, process)
        if pid is None:
            return
        if target == "worker":
            victims = [pid]
        elif target == "all":
            victims = [process.pid, *workers_of(process.pid)]  # the runner first: it must not start another
        else:
            victims = [process.pid]
        for victim in victims:
            with suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
        self.done[f"{target} during {stage}"] += 1
        self._note_records()
        if self.count % 20 == 0:
            self.tell(f"{self.count} kills, {sum(path.name == 'record.json' for path in self.written)} trainings recorded")
        if target != "worker":
            process.wait()
            for path in holders(self.project):  # the workers of a killed runner checkpoint and go
                until = time.monotonic() + 60
                while process_start(path) is not None and time.monotonic() < until:
                    time.sleep(0.02)

    def _wait_for(self, stage: str, process: subprocess.Popen[bytes]) -> tuple[int | None, str]:
        """A worker that is at this stage; after a while any that has a cell in hand."""
        until = time.monotonic() + _PATIENCE
        while process.poll() is None:
            found = list(holders(self.project).items())
            self.choose.shuffle(found)
            for pid, cell in found:
                if under_way(stage, cell):
                    return pid, stage
            if found and time.monotonic() > until:
                return found[0][0], "any"
            time.sleep(0.001)
        return None, stage

    def verdict(self, calm: Project) -> list[str]:
        """Everything that is wrong; nothing, it is to be hoped."""
        again = [f"{path}: was written again" for path in sorted(self.rewritten)]
        return again + [words for project in self.projects for words in verdict(project, calm)]


def leftovers(project: Project) -> Iterator[Path]:
    """Files that a finished store must not hold."""
    for path in project.store.rglob(".*"):
        if path.is_file() and not (path.name.startswith(".owner.") and path.name.endswith(".claim")):
            yield path


def verdict(disturbed: Project, undisturbed: Project) -> list[str]:
    """What is wrong with the disturbed store: lost, duplicated, corrupt records, other numbers, other weights."""
    wrong = []
    theirs = {path.name: path for path in undisturbed.cells()}
    ours = {path.name: path for path in disturbed.cells()}
    wrong += [f"{name}: lost" for name in theirs.keys() - ours.keys()] + [
        f"{name}: too many" for name in ours.keys() - theirs.keys()
    ]
    for name in sorted(theirs.keys() & ours.keys()):
        records = {path.relative_to(theirs[name]) for path in theirs[name].rglob("*.json")}
        found = {path.relative_to(ours[name]) for path in ours[name].rglob("*.json")}
        wrong += [f"{name}/{path}: lost or too many" for path in records ^ found]
        for path in (path for path in records & found if path.name not in ("owner.json", "config.json")):
            try:
                mine, other = read_record(ours[name] / path), read_record(theirs[name] / path)
            except Exception as error:
                wrong.append(f"{name}/{path}: corrupt, {error}")
                continue
            wrong += [
                f"{name}/{path}: {key} differs" for key in ("status", "metrics", "curves") if mine.get(key) != other.get(key)
            ]
        wrong += [f"{name}: {what}" for what in _differences(_state(ours[name]), _state(theirs[name]))]
        lines = [(folder / "metrics.jsonl") for folder in (ours[name], theirs[name])]
        if lines[1].exists() and lines[0].read_bytes() != lines[1].read_bytes():
            wrong.append(f"{name}: metrics.jsonl differs")
    return wrong + [f"{path}: left behind" for path in leftovers(disturbed)]


def _state(cell: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(cell / "checkpoint.pt", weights_only=True)
    return {key: value for key, value in state.items() if key in ("method", "optimizer", "random", "step", "lines", "total")}


def _differences(mine: Any, other: Any, at: str = "checkpoint") -> Iterator[str]:
    if isinstance(other, torch.Tensor):
        if not torch.equal(mine, other):
            yield f"{at} differs"
    elif isinstance(other, dict):
        if mine.keys() != other.keys():
            yield f"{at} has other keys"
        for key in mine.keys() & other.keys():
            yield from _differences(mine[key], other[key], f"{at}.{key}")
    elif isinstance(other, list | tuple):
        for number, (one, two) in enumerate(zip(mine, other, strict=True)):
            yield from _differences(one, two, f"{at}.{number}")
    elif mine != other:
        yield f"{at} differs"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.chaos", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=6, help="random seeds of the sweep, four cells each")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of moments and victims")
    args = parser.parse_args()
    begun = time.monotonic()

    def tell(text: str) -> None:
        print(f"{time.monotonic() - begun:5.0f} s  {text}", flush=True)

    with tempfile.TemporaryDirectory(prefix="retable-chaos-") as scratch:
        folder = Path(scratch)
        calm = project_in(folder / "calm", folder / "cache", args.seeds)
        done = calm.run("--jobs", "2")
        assert done.returncode == 0, done.stdout + done.stderr
        tell(f"{len(calm.cells())} cells undisturbed")
        chaos = Chaos(folder, folder / "cache", args.seeds, args.seed, tell)
        chaos.run(args.kills)
        for what, count in sorted(chaos.done.items()):
            print(f"  {count:4d}  {what}")
        wrong = chaos.verdict(calm)
        cells = sum(len(project.cells()) for project in chaos.projects)
        tell(f"{chaos.count} kills, {chaos.starts} starts of the runner, {cells} cells, {len(chaos.written)} records")
        tell(f"{len(wrong)} lost, duplicated, corrupt, different or left behind")
        print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
