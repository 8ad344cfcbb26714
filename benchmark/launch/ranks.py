"""Several processes that train one cell: who they are, and how they come together.

Rank 0 is the process that holds the cell. Either it starts the others itself, beside it on its machine, when the training
begins (`python -m benchmark.launch.ranks`), or SLURM has started one task for each rank, on one machine or several. In both
cases rank 0 keeps a place to meet, and tells the others there whether there is anything to train: a cell that only wants
evaluating needs no other rank.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.errors import InputError
from benchmark.launch.work import Site
from benchmark.store.failure import class_of, first_line
from benchmark.store.owner import FAILURES

if TYPE_CHECKING:
    from benchmark.train.distributed import Place

_WORD = "what to do"  # the key under which rank 0 says `train` or `leave`
_UNTIL_THE_WORD = timedelta(hours=24)  # rank 0 may have to wait for its former self, or for a slow disk
_TO_END = 30.0  # seconds that the others get to end by themselves
_ROOT = Path(__file__).resolve().parents[2]


class RankLost(RuntimeError):
    """Another rank of this training ended before its time; its own words, and the class of its failure."""

    def __init__(self, words: str, failure: str, torn: bool = False) -> None:
        super().__init__(words)
        self.failure, self.torn = failure, torn  # torn along by another one


def place_in_job() -> Place | None:
    """Where this process stands in a SLURM job of several tasks; None where it is alone.

    Rank 0 runs on the machine that `srun` was started on, whose address SLURM hands to every task. The port follows from the
    job's own number, which no two jobs of a site share.
    """
    from benchmark.train.distributed import Place

    tasks = int(os.environ.get("SLURM_NTASKS", "1"))
    if tasks == 1 or "SLURM_PROCID" not in os.environ:
        return None
    return Place(
        rank=int(os.environ["SLURM_PROCID"]),
        world_size=tasks,
        local_rank=int(os.environ["SLURM_LOCALID"]),
        address=os.environ.get("SLURM_LAUNCH_NODE_IPADDR") or "127.0.0.1",
        port=20_000 + int(os.environ["SLURM_JOB_ID"]) % 20_000,
    )


class Alone:
    """Rank 0 of one."""

    def __enter__(self) -> Alone:
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        yield


class Lead:
    """Rank 0 of several tasks of a SLURM job. `training` brings the ranks together; at the end the others are sent home."""

    def __init__(self, place: Place, device: str) -> None:
        self.place, self.device = place, device

    def __enter__(self) -> Lead:
        self._meeting = self.place.meeting()
        self._said = False
        return self

    def __exit__(self, *exception: object) -> None:
        if not self._said:
            self._say("leave")

    def _say(self, word: str) -> None:
        self._said = True
        self._meeting.set(_WORD, word)

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        import torch

        from benchmark.train.distributed import joined

        self._say("train")
        with joined(self.place, self._meeting, torch.device(self.device)):
            yield


class LeadHere:
    """Rank 0 of several on this machine: starts the others when the training begins, and ends them with it."""

    def __init__(self, site: Site, cell_id: str) -> None:
        self.site, self.cell_id = site, cell_id
        self._others: list[_Other] = []

    def __enter__(self) -> LeadHere:
        return self

    def __exit__(self, *exception: object) -> None:
        for other in self._others:
            other.end()

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        from benchmark.train.distributed import Place

        here = Place(world_size=self.site.ranks)
        with Lead(here, self.site.device) as lead:
            port = lead._meeting.port  # port 0: the system has chosen a free one
            over = threading.Event()
            for number in range(1, self.site.ranks):
                place = replace(here, rank=number, local_rank=number, port=port)
                self._others.append(_Other(self.site, self.cell_id, place, over))
            try:
                with lead.training():
                    yield
            except RuntimeError as error:
                # Whoever ends first tears the others along; its words say more than that its connection was closed.
                if class_of(error) == "node" and (lost := self._lost()):
                    raise lost from error
                raise
            finally:
                over.set()

    def _lost(self) -> RankLost | None:
        """What became of the rank that ended first; one that was itself torn along only says so if no other says more."""
        until = time.monotonic() + _TO_END / 3
        while time.monotonic() < until:
            found = [lost for other in self._others if (lost := other.lost())]
            first = next((lost for lost in found if not lost.torn), None)
            if first is not None or len(found) == len(self._others):
                return first or found[0]
            time.sleep(0.1)
        return None


class _Other:
    """A rank that this process has started."""

    def __init__(self, site: Site, cell_id: str, place: Place, over: threading.Event) -> None:
        environment = dict(os.environ)
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(_ROOT), environment.get("PYTHONPATH")]))
        self.place, self._over, self._said = place, over, ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmark.launch.ranks"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches the runner alone
        )
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps({"site": site.values(), "cell": cell_id, "place": asdict(place)}) + "\n")
            self.process.stdin.flush()
        threading.Thread(target=self._watch, daemon=True, name=f"rank {place.rank}").start()

    def _watch(self) -> None:
        """Reads its last words. One that dies during the training may leave a GPU waiting for it for ever, deaf to everything:
        then this process ends as well, which costs this cell alone; it goes on from its checkpoint."""
        assert self.process.stdout is not None
        self._said = self.process.stdout.read().strip()
        self.process.wait()
        if self.process.returncode and not self._over.wait(_TO_END):
            sys.stderr.write(f"{self._death(self.process.returncode)}; this rank waits for it in vain and ends\n")
            os._exit(1)

    def lost(self) -> RankLost | None:
        """Why it ended before its time, if it did."""
        code = self.process.poll()
        return None if code in (None, 0) else self._death(code)

    def _death(self, code: int) -> RankLost:
        rank = f"rank {self.place.rank} of {self.place.world_size}"
        if code < 0:
            return RankLost(f"{rank} was killed by {signal.Signals(-code).name}", "node")
        failure, _, said = self._said.partition(": ")
        if failure in FAILURES:
            return RankLost(f"{rank}: {said}", failure, torn=failure == "node")
        return RankLost(f"{rank}: {self._said or f'ended with exit code {code}'}", "code")

    def end(self) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(_TO_END)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def lead(site: Site, cell_id: str) -> Alone | Lead | LeadHere:
    """How the process that holds a cell comes by the other ranks; a context manager whose `training` is another."""
    place = place_in_job()
    if place is not None:
        return Lead(place, site.device)
    return LeadHere(site, cell_id) if site.ranks > 1 else Alone()


def follow(site: Site, cell_id: str, place: Place) -> None:
    """Any other rank: wait for rank 0's word, take part in the training, and end with it. Writes nothing."""
    import torch

    from benchmark.launch.worker import open_data
    from benchmark.pretrain import Machine, Pretraining
    from benchmark.store.record import read_json
    from benchmark.train.distributed import joined
    from benchmark.train.loop import Diverged
    from benchmark.train.stop import Stopped, StopRequest

    meeting = place.meeting(_UNTIL_THE_WORD)
    meeting.wait([_WORD], _UNTIL_THE_WORD)
    if meeting.get(_WORD) != b"train":
        return
    folder = Path(site.store) / "cells" / cell_id
    config: dict[str, Any] = read_json(folder / "config.json")["config"]
    machine = Machine(site.device, site.threads, site.workers, site.backend)
    if machine.torch_device.type == "cpu":
        torch.set_num_threads(machine.threads)
    pretraining = Pretraining(config, open_data(site, config["data"]["name"]), machine, folder)
    # Rank 0 has the deadline; a signal that reaches this rank too is only noted, and all stop at the same step.
    stop = StopRequest()
    with contextlib.suppress(Stopped, Diverged), joined(place, meeting, machine.torch_device):
        pretraining.train(stop, lambda progress: None, 0, lambda: None)


def main() -> int:
    """A rank that rank 0 has started: its order is on standard input, its last words go to standard output."""
    from benchmark.launch.worker import die_with_parent
    from benchmark.train.distributed import Place

    die_with_parent()
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    order = json.loads(sys.stdin.readline())
    try:
        follow(Site(**order["site"]), order["cell"], Place(**order["place"]))
    except InputError as error:
        out.write(str(error))
        return 2
    except Exception as error:
        out.write(f"{class_of(error)}: {first_line(error)}")
        return 1
    finally:
        out.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
