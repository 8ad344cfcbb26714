"""One cell from start to end: claim it, train it from wherever it stands, evaluate it, leave records.

What a cell is lies in its config; what is not in it (device, threads, folders) only says where and how fast it runs.
"""

from __future__ import annotations

import contextlib
import logging
import resource
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmark.data.datasets import Dataset
from benchmark.errors import InputError
from benchmark.evaluate.measure import Asked, measure
from benchmark.evaluate.subject import Subject
from benchmark.plan.cell import Evaluation
from benchmark.pretrain import Machine, Pretraining
from benchmark.store.failure import class_of, first_line
from benchmark.store.owner import Claim, Replaced
from benchmark.store.record import SCHEMA, divergence, storage_error, write_json
from benchmark.store.store import CellRecord, Store
from benchmark.train.checkpoint import load
from benchmark.train.loop import Diverged, Progress, Training
from benchmark.train.stop import Stopped, StopRequest
from methods import load as load_method
from methods.departures import of_module
from methods.gather import world_size

Together = Callable[[], contextlib.AbstractContextManager[object]]


@dataclass(frozen=True)
class Result:
    """How a cell ended: done | diverged | busy | stopped | failed, with a sentence; done has one if an evaluation diverged."""

    status: str
    note: str = ""
    failure: str | None = None  # one of benchmark.store.owner.FAILURES


def execute(
    store: Store,
    cell_id: str,
    config: dict[str, Any],
    protocols: list[dict[str, Any]],
    dataset: Dataset,
    machine: Machine,
    stop: StopRequest,
    report: Callable[[str, Progress | None], None] = lambda stage, progress: None,
    force: bool = False,
    retry: bool = False,
    boxes: Callable[[str], Any] | None = None,
    together: Together = contextlib.nullcontext,
) -> Result:
    """Bring one cell to its end. Never raises for what concerns this cell alone: a failure is a Result.

    force: forget what is there; retry: only the evaluations that diverged. boxes: opens a detection data set by name.
    together: within it, the other ranks that train this cell are there; evaluation is this process's alone.
    """
    folder = store.folder(cell_id)
    if not force and _finished(store, cell_id, protocols, retry):
        return Result("done")  # by another run since this one was planned; the claim's count tells of work alone
    claim = Claim.take(folder)
    if claim is None:
        return Result("busy", "another process runs this cell")
    log = logging.getLogger(f"retable.{cell_id}")
    try:
        _open_log(log, folder / "log.txt")
        claim.keep_alive()
        if force:
            _forget(folder)
        found = store.cell(cell_id)
        run = _Run(store, cell_id, config, dataset, machine, stop, report, claim, log, boxes)
        record = found.record
        if record is None or not found.has_checkpoint:
            record = run.train(together)
        if record["status"] == "diverged":
            claim.release("done", divergence(record), "diverged")
            return Result("diverged", divergence(record), "diverged")
        result = run.evaluate(_missing(found, protocols, retry))
        state = {"done": "done", "failed": "failed", "refused": "stopped"}[result.status]
        claim.release(state, result.note, result.failure)
        return Result("failed" if result.status == "refused" else result.status, result.note, result.failure)
    except Stopped as stopped:
        log.info("stopped: %s; a checkpoint is written", stopped)
        failure = stop.failure
        claim.release("stopped", str(stopped), failure)
        return Result("stopped", str(stopped), failure)
    except Replaced as replaced:
        log.info("%s", replaced)
        return Result("busy", str(replaced))
    except InputError as error:  # the user can put it right, and then the next run goes on from here
        log.info("error: %s", error)
        failure = "node" if class_of(error) == "node" else None  # storage that is gone is nothing the user wrote wrongly
        _release(claim, "stopped", str(error), failure)
        return Result("failed", str(error), failure)
    except Exception as error:  # whatever went wrong in this cell, it must cost this cell alone; the log has all of it
        log.info("failed:\n%s", traceback.format_exc())
        failure = class_of(error)  # what the machine did is no reason to look at the cell: the next run goes on
        _release(claim, "died" if failure == "node" else "failed", first_line(error), failure)
        return Result("failed", first_line(error), failure)
    finally:
        for handler in list(log.handlers):
            log.removeHandler(handler)
            handler.close()


def _missing(found: CellRecord, protocols: list[dict[str, Any]], retry: bool) -> list[Asked]:
    """The evaluations that have no record, and those that diverged where they are to be tried again."""
    have = found.evaluated - (found.diverged if retry else set())
    wanted = [Evaluation(found.id, protocol) for protocol in protocols]
    return [Asked(one.id, one.protocol) for one in wanted if one.id not in have]


def _finished(store: Store, cell_id: str, protocols: list[dict[str, Any]], retry: bool) -> bool:
    found = store.cell(cell_id)
    trained = found.record is not None and found.record["status"] == "done"
    return trained and not _missing(found, protocols, retry)


class _Run:
    """What the stages of one cell share."""

    def __init__(
        self,
        store: Store,
        cell_id: str,
        config: dict[str, Any],
        dataset: Dataset,
        machine: Machine,
        stop: StopRequest,
        report: Callable[[str, Progress | None], None],
        claim: Claim,
        log: logging.Logger,
        boxes: Callable[[str], Any] | None,
    ) -> None:
        self.cell_id, self.config, self.dataset, self.machine = cell_id, config, dataset, machine
        self.stop, self.claim, self.log, self.folder, self.boxes = stop, claim, log, store.folder(cell_id), boxes
        self._report = report
        self._stage = "train"
        self._logged = 0  # tenths of this stage's training that the log has
        self.pretraining = Pretraining(config, dataset, machine, self.folder)
        if machine.torch_device.type == "cpu":
            torch.set_num_threads(machine.threads)

    def report(self, progress: Progress) -> None:
        self._report(self._stage, progress)
        self.claim.beat({"stage": self._stage, **progress.__dict__})
        tenth = 10 * progress.step // progress.total
        if tenth < self._logged:  # another training of the same evaluation: a trial, a student
            self._logged = tenth
        if tenth > self._logged:
            self._logged = tenth
            left = f"{progress.eta_seconds:.0f} s left"
            self.log.info("%3d %%  epoch %.1f  loss %.4f  %s", 10 * tenth, progress.epoch, progress.loss, left)

    def _begin(self, stage: str) -> None:
        self._stage, self._logged = stage, 0
        self._report(stage, None)
        self.claim.beat({"stage": stage})

    def train(self, together: Together) -> dict[str, Any]:
        """The pretraining stage: from the checkpoint or from the start to record.json."""
        restarts = self.claim.token - 1
        if not load_method(self.config["method"]).TRAINS:
            self.pretraining.save_untrained()
            return self._record("done", {}, {}, {"wall_seconds": 0.0, "steps": 0, "restarts": restarts})
        _forget_peak_memory(self.machine.torch_device)
        try:
            with together():
                ranks = world_size()
                outcome = self.pretraining.train(self.stop, self.report, self.claim.token, self.claim.check, self._begun)
        except Diverged as diverged:
            self.log.info("diverged: %s", diverged)
            steps = {"steps": diverged.step, "restarts": restarts}
            return self._record("diverged", None, None, steps, {"diverged": diverged.found})
        self.log.info("trained in %.1f s, %.0f images/s", outcome.wall_seconds, outcome.images_per_second)
        timing = {
            "wall_seconds": outcome.wall_seconds,
            "images_per_second": outcome.images_per_second,
            "steps": outcome.steps,
            "restarts": restarts,
            "ranks": ranks,
            "peak_memory_bytes": _peak_memory(self.machine.torch_device),
        }
        return self._record("done", outcome.metrics, outcome.curves, timing)

    def _begun(self, training: Training, resumed: bool) -> None:
        self._logged = 10 * training.step // training.total
        start = f"goes on at step {training.step:,}" if resumed else "starts"
        device = self.machine.device
        where = device if world_size() == 1 else f"{world_size()} ranks, each on {device}"
        self.log.info("training %s of %s on %s", start, f"{training.total:,}", where)

    def evaluate(self, wanted: list[Asked]) -> Result:
        """Measure what is missing: done | refused (the user can put it right) | failed, with a sentence of what is not."""
        if not wanted:
            return Result("done")
        self._begin("evaluate")
        method = self.pretraining.build()
        method.load_state_dict(load(self.folder / "checkpoint.pt")["method"])
        folder = self.folder / "evaluations"
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise storage_error(self.folder, error) from error
        subject = Subject(
            method.eval(), self.dataset, self.pretraining.split, self.config["data"]["image_size"], self.pretraining.channels,
            self.machine.torch_device, self.config["seed"], self.machine.workers, self.machine.backend,
            self.stop, self.report, self.claim.check, self.boxes, self.log,
        )  # fmt: skip
        about = {"cell": self.cell_id, "provenance": self.machine.provenance()}
        troubles = measure(subject, wanted, folder, about, self._begin)
        if troubles.failed:
            return Result("failed", first_line(troubles.failed[0]), class_of(troubles.failed[0]))
        if troubles.refused:
            return Result("refused", "; and ".join(troubles.refused))
        return Result("done", "; ".join(troubles.diverged))

    def _record(
        self,
        status: str,
        metrics: dict[str, Any] | None,
        curves: dict[str, Any] | None,
        timing: dict[str, Any],
        more: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        method_class = load_method(self.config["method"])
        record = {
            "schema": SCHEMA,
            "stage": "pretrain",
            "id": self.cell_id,
            "status": status,
            "method": {"name": self.config["method"], "version": self.config["version"]},
            "config": self.config,
            "metrics": metrics,
            "curves": curves,
            "timing": timing,
            "data": {
                "name": self.dataset.name,
                "content": self.dataset.content,
                "kind": self.dataset.kind,
                "note": self.dataset.note,
            },
            "provenance": self.machine.provenance(),
            "departures": [note.text for note in of_module(method_class.__module__)],
            **(more or {}),
        }
        self.claim.check()
        write_json(self.folder / "record.json", record)
        return record


def _open_log(log: logging.Logger, path: Path) -> None:
    logging.raiseExceptions = False  # a full disk must not print tracebacks from within logging
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        handler = logging.FileHandler(path)
    except OSError as error:
        raise storage_error(path, error) from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    log.addHandler(handler)


def _forget_peak_memory(device: torch.device) -> None:
    """Start the peak anew: a worker runs many cells, and each must report its own."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        with contextlib.suppress(OSError):  # Linux; elsewhere the peak stays that of the process
            Path("/proc/self/clear_refs").write_text("5")


def _peak_memory(device: torch.device) -> int:
    """Bytes: of allocated GPU memory, or of the process's resident set."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _forget(folder: Path) -> None:
    for path in (folder / "record.json", folder / "checkpoint.pt", folder / "metrics.jsonl"):
        path.unlink(missing_ok=True)
    for path in folder.glob("evaluations/*"):
        path.unlink()


def _release(claim: Claim, state: str, note: str, failure: str | None) -> None:
    with contextlib.suppress(InputError):  # a full disk: the claim dies with this process, which is as good
        claim.release(state, note, failure)
