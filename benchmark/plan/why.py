"""What is to be done with one cell, and why, from what its folder holds. Nothing here changes the store."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

from benchmark.plan.cell import Cell, Evaluation
from benchmark.store.owner import failure_of
from benchmark.store.record import divergence
from benchmark.store.store import CellRecord

Mode = Literal["cached", "retry", "force"]
# train: from the start; again: from the start, forgetting what is there; leave, submitted: somebody else has it in hand
Do = Literal["train", "again", "resume", "evaluate", "nothing", "leave", "submitted"]
Decision = tuple[Do, str, tuple[Evaluation, ...]]  # what, why, the evaluations that are to be measured


def decide(cell: Cell, found: CellRecord, mode: Mode, before: Callable[[Cell], int | None]) -> Decision:
    """before: the VERSION of the method under which the same experiment was finished, if there is one."""
    have = found.evaluated - (found.diverged if mode == "retry" else set())
    missing = tuple(one for one in cell.evaluations if one.id not in have) if have else cell.evaluations
    if found.running:
        assert found.owner is not None
        return "leave", f"running on {found.owner['host']} (process {found.owner['pid']})", missing
    if mode == "force":
        return "again", "forced: trained and evaluated again", cell.evaluations
    if found.record is not None:
        return _trained(cell, found, found.record, mode, missing)
    if any("record.json" in problem for problem in found.problems):
        do: Do = "resume" if found.has_checkpoint else "train"
        return do, "its record cannot be read; made again", missing
    failed = found.owner is not None and found.owner.get("released") == "failed"
    if failed and mode == "cached":
        return "nothing", f"failed: {_failure(found)} (--mode retry tries again)", ()
    again = f"failed before ({_failure(found)}); tried again" if failed else ""
    end = "" if failed or not (told := _failure(found)) else f" ({told})"
    if found.has_checkpoint:
        return "resume", again or f"interrupted{end}; goes on from its checkpoint", missing
    old = before(cell)
    if old is not None:
        return "train", f"stale: {cell.config['method']} VERSION {old} -> {cell.config['version']}", missing
    if found.owner is not None:
        return "train", again or f"interrupted{end} before its first checkpoint; from the start", missing
    return "train", "new", missing


def _trained(cell: Cell, found: CellRecord, record: dict[str, Any], mode: Mode, missing: tuple[Evaluation, ...]) -> Decision:
    if record["status"] == "diverged":
        if mode == "retry":
            return "again", "diverged before; tried again", cell.evaluations
        return "nothing", f"diverged: {divergence(record)} (--mode retry tries again)", ()
    if missing:
        changed = _changed(cell, found, missing)
        if found.has_checkpoint:
            return "evaluate", f"trained; {_names(missing)} still to measure{changed}", missing
        return "train", f"trained, but its checkpoint is gone and an evaluation is missing{changed}", missing
    diverged = tuple(evaluation for evaluation in cell.evaluations if evaluation.id in found.diverged)
    return "nothing", f"done; {_names(diverged)} diverged (--mode retry measures again)" if diverged else "done", ()


def _failure(found: CellRecord) -> str:
    """`oom: out of memory`: the class of what ended the last start, and its words; nothing where it ended well."""
    owner = found.owner or {}
    failure, note = failure_of(owner), str(owner.get("note") or "")
    if failure is None or owner.get("released") not in ("failed", "died"):
        return ""
    return note if note.startswith(f"{failure}:") else f"{failure}: {note}" if note else failure


def _changed(cell: Cell, found: CellRecord, missing: Iterable[Evaluation]) -> str:
    """What has changed of protocols under which the cell was measured, but is not as they are now."""
    planned = {evaluation.id for evaluation in cell.evaluations}
    changes = []
    for evaluation in missing:
        name = str(evaluation.protocol["name"])
        earlier = [record["protocol"] for record in found.evaluations.get(name, []) if record["id"] not in planned]
        if earlier:
            nearest = min((_differences(protocol, evaluation.protocol) for protocol in earlier), key=len)
            changes += [f"{name} {difference}" for difference in nearest]
    return f" (protocol changed: {', '.join(dict.fromkeys(changes))})" if changes else ""


def _differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """`VERSION 1 -> 2`, `k 20 -> 200`; of what came later, or is no more, `not set`."""
    if old.get("version") != new.get("version"):
        return [f"VERSION {old.get('version')} -> {new.get('version')}"]
    keys = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    return [f"{key} {old.get(key, 'not set')} -> {new.get(key, 'not set')}" for key in keys]


def _names(evaluations: Iterable[Evaluation]) -> str:
    return ", ".join(dict.fromkeys(str(evaluation.protocol["name"]) for evaluation in evaluations))
