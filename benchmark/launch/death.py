"""Why a process is gone that did not say so itself: what its parent and the system can tell, and the class of failure in it."""

from __future__ import annotations

import contextlib
import re
import signal
from pathlib import Path

_BUGS = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE, signal.SIGTRAP, signal.SIGSYS)


def oom_kills(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Processes that the kernel has killed for want of memory; None where it does not say.

    Those of this process's own control group, its children's as well; where that cannot be read (another container's view, an
    old kernel), those of the whole machine. Only whether it rises means something.
    """
    counters = []
    with contextlib.suppress(OSError):
        for line in (proc / "self/cgroup").read_text().splitlines():
            _, controllers, inside = line.split(":", 2)
            if controllers == "":
                counters += [groups / inside.strip("/") / "memory.events", groups / "memory.events"]
            elif "memory" in controllers.split(","):
                counters += [groups / "memory" / part / "memory.oom_control" for part in (inside.strip("/"), "")]
    for path in (*counters, proc / "vmstat"):
        with contextlib.suppress(OSError):
            found = re.search(r"^oom_kill (\d+)$", path.read_text(), re.M)
            if found is not None:
                return int(found[1])
    return None


def why_it_died(code: int | None, starved: bool = False) -> tuple[str, str]:
    """(class of failure, words) of a process that ended with this exit code, negative for a signal, as subprocess has it.

    starved: the kernel has killed for want of memory in its time.
    """
    if code is None or code >= 0:
        return "code", f"its process ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:  # a real-time signal
        name = f"signal {-code}"
    if -code == signal.SIGKILL and starved:
        return "oom", "killed by SIGKILL when memory ran out; try fewer --jobs"
    if -code in _BUGS:
        return "code", f"its process crashed with {name}"
    return "node", f"killed by {name} from outside"
