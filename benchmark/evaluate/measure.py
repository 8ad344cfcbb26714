"""All that is asked of one network, protocol after protocol; each leaves its record as soon as it is finished.

What goes wrong with one protocol costs that one alone: all that can be measured is measured, then the troubles are told.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark.errors import InputError
from benchmark.evaluate.protocols import PROTOCOLS
from benchmark.evaluate.subject import Found, Place, Subject
from benchmark.store.owner import Replaced
from benchmark.store.record import SCHEMA, divergence, write_json
from benchmark.train.loop import Diverged
from benchmark.train.stop import Stopped


@dataclass(frozen=True)
class Asked:
    """One evaluation: the id of its record, and the protocol with all its settings."""

    id: str
    protocol: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.protocol["name"])


@dataclass
class Troubles:
    """What came of the evaluations that have no number. diverged: they have a record that says so.

    refused: sentences on what the user can put right. failed: the errors of our own making, which the log has in full.
    """

    diverged: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    failed: list[Exception] = field(default_factory=list)


def measure(
    subject: Subject,
    wanted: Sequence[Asked],
    folder: Path,
    about: dict[str, Any],
    announce: Callable[[str], None] = lambda stage: None,
) -> Troubles:
    """Measure each, and write `<id>.json` into `folder`; about: what else their records say, such as the provenance.

    announce: is told which one begins, and its number among several. Raises Stopped after a checkpoint, and at once what the
    store refuses: where one record cannot be written, no other can.
    """
    troubles = Troubles()
    for number, asked in enumerate(wanted, 1):
        subject.stop.heed()
        announce(asked.name if len(wanted) == 1 else f"{asked.name}, {number} of {len(wanted)}")
        place = Place(folder, asked.id)
        timing = _Timing(subject, place)
        record = {"schema": SCHEMA, "stage": asked.name, "id": asked.id, "protocol": asked.protocol, **about}
        try:
            found = PROTOCOLS[asked.name](subject, asked.protocol, place)
        except Diverged as diverged:
            record |= {"status": "diverged", "metrics": {}, "chosen": {}, "pictures": [], "diverged": diverged.found}
            troubles.diverged.append(f"{asked.name} diverged: {divergence(record)}")
            subject.log.info(troubles.diverged[-1])
        except InputError as error:
            troubles.refused.append(str(error))
            subject.log.info("%s: error: %s", asked.name, error)
            continue
        except (Stopped, Replaced):
            raise
        except Exception as error:
            subject.log.info("%s failed:\n%s", asked.name, traceback.format_exc())
            troubles.failed.append(error.with_traceback(None))  # its frames hold the memory that it may have lacked
            continue
        else:
            record |= _contents(found)
            shown = ", ".join(f"{name} {value:.4g}" for name, value in found.metrics.items())
            subject.log.info("%s: %s", asked.name, shown)
        subject.check()
        write_json(folder / f"{asked.id}.json", record | {"timing": timing.values()})
        for path in _interrupted(place):
            path.unlink()
    return troubles


def _interrupted(place: Place) -> list[Path]:
    """What an interrupted evaluation has kept."""
    return sorted(place.folder.glob(f"{place.stem}*.pt"))


def _contents(found: Found) -> dict[str, Any]:
    return {"status": "done", "metrics": found.metrics, "chosen": found.chosen, "pictures": list(found.pictures)}


class _Timing:
    """How long an evaluation takes from now on, in seconds.

    features_seconds: that part of it which took the features for all protocols, so that prices can tell it from the rest.
    resumed: it went on from a checkpoint, so that the seconds before it are not in the sum.
    """

    def __init__(self, subject: Subject, place: Place) -> None:
        self.subject, self.resumed = subject, bool(_interrupted(place))
        self.started, self.before = time.monotonic(), subject.features_seconds

    def values(self) -> dict[str, Any]:
        return {
            "wall_seconds": time.monotonic() - self.started,
            "features_seconds": self.subject.features_seconds - self.before,
            **({"resumed": True} if self.resumed else {}),
        }
