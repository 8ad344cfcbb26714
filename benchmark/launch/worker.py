"""A worker process: takes cells one after the other, so that torch is imported and kernels are compiled once for many cells.

Speaks JSON lines: on standard input `{"site": {...}}` once and then `{"cell": id, "force": bool, "retry": bool}` for each
cell; on standard output `{"stage": ..., "progress": {...}}` while it works and `{"ended": status, "note": ...}` at the end
of each cell.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from benchmark.errors import InputError
from benchmark.launch.ranks import lead
from benchmark.launch.work import Site
from benchmark.plan.evaluations import boxes_of, content_of, labels_file

_PR_SET_PDEATHSIG = 1


def open_data(site: Site, name: str) -> Any:
    """A data set that the runner has already prepared."""
    from benchmark.data.datasets import find, prepared

    dataset = prepared(find(name, site.data_path(name), Path(site.cache)), Path(site.cache))
    if dataset is None:
        raise InputError(f"{site.cache}: the data set {name} is not prepared there; start the run again")
    return dataset


def open_boxes(site: Site, name: str) -> Any:
    """A detection data set that the runner has found; another process may have changed it since."""
    from benchmark.data.boxes import find_boxes

    if name not in site.boxes:
        raise InputError(f"the detection data set {name} is not known here; give it with --data {name}=PATH")
    told = site.boxes[name]
    source = find_boxes(name, Path(told["path"]) if told["path"] else None, Path(site.cache))
    if source.content != told["content"]:
        raise InputError(f"{source.path}: has changed since the run was started; start it again")
    return source.open()


def _at_hand(site: Site, protocol: dict[str, Any]) -> bool:
    """Whether its photographs, or its list of images, are those of this run: another sweep may have asked for it where there
    were others."""
    if listed := labels_file(protocol):
        return content_of(listed) == protocol.get("content")
    name = boxes_of(protocol)
    return name is None or site.boxes.get(name, {}).get("content") == protocol.get("content")


def run_cell(site: Site, stop: Any, cell_id: str, force: bool, retry: bool, report: Any, others: Any = None) -> tuple[str, str]:
    """Bring one cell of the store to its end in this process; (status, note).

    others: the other ranks, where the caller already holds them together (`benchmark.launch.ranks.lead`).
    """
    from benchmark.execute import Machine, execute
    from benchmark.plan.protocols import PROTOCOLS
    from benchmark.store.record import read_json
    from benchmark.store.store import Store
    from methods.catalogue import CATALOGUE

    store = Store(Path(site.store))
    try:
        request = read_json(store.folder(cell_id) / "config.json")
        config = request["config"]
        now = CATALOGUE()["methods"].get(config["method"], {}).get("version")
        if config["version"] != now:
            what = f"{config['method']} VERSION {config['version']}, this code has {now}"
            raise InputError(f"{store.folder(cell_id)}: was planned for {what}; start the sweep again")
        planned = [p for p in request["evaluate"] if p["name"] in PROTOCOLS and PROTOCOLS[p["name"]][0] == p["version"]]
        wanted = [p for p in planned if _at_hand(site, p)]
        dataset = open_data(site, config["data"]["name"])
        boxes = functools.partial(open_boxes, site)
        machine = Machine(site.device, site.threads, site.workers, site.backend)
        with contextlib.nullcontext(others) if others else lead(site, cell_id) as ranks:
            result = execute(
                store, cell_id, config, wanted, dataset, machine, stop, report, force, retry, boxes, ranks.training
            )
    except InputError as error:
        return "failed", str(error)
    return result.status, result.note


def serve(lines: TextIO, out: TextIO) -> None:
    """Work until the input ends or a stop is asked for."""
    from benchmark.train.stop import StopRequest

    def say(**message: Any) -> None:
        try:
            out.write(json.dumps(message) + "\n")
            out.flush()
        except OSError:  # nobody listens any more: write a checkpoint and go, rather than fail the cell
            stop.ask("the runner is gone")

    first = lines.readline()
    if not first:
        return
    site = Site(**json.loads(first)["site"])
    stop = StopRequest(site.deadline)
    stop.listen(signal.SIGTERM, signal.SIGUSR2, signal.SIGHUP)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the runner gets Ctrl-C and tells its workers
    last = 0.0

    def report(stage: str, progress: Any) -> None:
        nonlocal last
        if progress is None or time.monotonic() - last > 0.25:
            last = time.monotonic()
            say(stage=stage, progress=progress.__dict__ if progress else None)

    say(ready=True)
    for line in lines:
        order = json.loads(line)
        if stop.wanted:
            say(ended="stopped", note=stop.reason)
            continue
        status, note = run_cell(site, stop, order["cell"], order["force"], order["retry"], report)
        say(ended=status, note=note)


def die_with_parent() -> None:
    """When the parent dies, however hard, this process gets TERM: to write a checkpoint and go (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def main() -> None:
    die_with_parent()
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints goes to standard error, not between our lines
    serve(sys.stdin, out)


if __name__ == "__main__":
    main()
