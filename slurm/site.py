"""What a SLURM site says of itself, read from its own programs' output. Nothing here changes anything there."""

from __future__ import annotations

import re
from dataclasses import dataclass

_UNITS = {"K": 1 / 1024, "M": 1, "G": 1024, "T": 1024 * 1024}
_NO_LIMIT = ("UNLIMITED", "INFINITE", "NONE", "N/A", "(null)", "")


@dataclass(frozen=True)
class Node:
    """One line of `sinfo -N`. memory: MB; gpus: type -> count, the type of a nameless one is empty."""

    name: str
    cpus: int
    memory: int
    gpus: dict[str, int]
    features: tuple[str, ...]
    state: str

    @property
    def works(self) -> bool:
        return not re.match(r"down|drain|drng|fail|maint|unk|inval|future|boot", self.state)


def config(shown: str) -> dict[str, str]:
    """`scontrol show config`: key -> value, `(null)` as an empty text."""
    pairs = re.findall(r"^(\w+)[ \t]*=[ \t]*(.*?)[ \t]*$", shown, re.M)
    return {key: "" if value == "(null)" else value for key, value in pairs}


def partitions(shown: str) -> dict[str, dict[str, str]]:
    """`scontrol show partition --oneliner`: name -> its settings."""
    found = {}
    for line in shown.splitlines():
        settings = dict(re.findall(r"(\w+)=(\S*)", line))
        if "PartitionName" in settings:
            found[settings["PartitionName"]] = settings
    return found


def nodes(shown: str) -> list[Node]:
    """`sinfo -h -N -o "%N|%c|%m|%G|%f|%t"`."""
    found = []
    for line in shown.splitlines():
        name, cpus, memory, gres, features, state = [*line.strip().split("|"), "", "", "", "", "", ""][:6]
        if name and cpus.isdecimal():
            megabytes = int(memory) if memory.isdecimal() else 0
            words = tuple(word for word in features.split(",") if word not in ("", "(null)"))
            found.append(Node(name, int(cpus), megabytes, gpus(gres), words, state.rstrip("*~#!%$@^-").lower()))
    return found


def gpus(gres: str) -> dict[str, int]:
    """`gpu:a100:4(S:0-1),gpu:2,nvme:1` as {"a100": 4, "": 2}."""
    found: dict[str, int] = {}
    for kind, count in re.findall(r"(?:^|,)gpu(?::([A-Za-z][\w.-]*))?(?::(\d+))?(?=[(,]|$)", gres):
        found[kind] = found.get(kind, 0) + int(count or 1)
    return found


def minutes(limit: str) -> float | None:
    """A time as SLURM prints it (`2-00:00:00`, `04:00:00`, `30:00`, `45`), in minutes; None for no limit."""
    if limit.strip() in _NO_LIMIT:
        return None
    days, _, rest = limit.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if days:
        hours, minute, second = [*parts, 0, 0][:3]
    elif len(parts) == 1:
        hours, minute, second = 0, parts[0], 0
    else:
        hours, minute, second = [0, *parts][-3:]
    return 24 * 60 * int(days or 0) + 60 * hours + minute + second / 60


def seconds(value: str) -> int | None:
    """`30 sec` or `30`."""
    found = re.match(r"\d+", value)
    return int(found[0]) if found else None


def megabytes(size: str) -> float | None:
    """`4000`, `4G`, `4000M` as MB; None for no limit."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)B?", size.strip())
    return float(found[1]) * _UNITS[found[2] or "M"] if found else None


def table(shown: str, *columns: str) -> list[dict[str, str]]:
    """What `--parsable2 --noheader` prints, a dictionary a line."""
    rows = [line.split("|") for line in shown.splitlines() if line.strip()]
    return [dict(zip(columns, row, strict=False)) for row in rows]


def listed(words: str) -> list[str]:
    """`a,b` as [a, b]; what means nothing as []."""
    return [word for word in words.split(",") if word not in (*_NO_LIMIT, "ALL")]


def storage(path: str, mounts: str) -> str:
    """The kind of file system that an absolute path lies on, from /proc/mounts."""
    best, kind = "", ""
    for line in mounts.splitlines():
        _, where, found, *_ = [*line.split(), "", "", ""]
        where = where.replace("\\040", " ")
        inside = path == where or path.startswith(where.rstrip("/") + "/")
        if inside and len(where) >= len(best):
            best, kind = where, found
    return kind
