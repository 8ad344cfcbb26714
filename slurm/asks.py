"""One thing that a profile asks for, held against a partition and its nodes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmark.errors import nearest
from benchmark.launch.cluster import Ask
from benchmark.launch.jobs import ask_slurm
from slurm import site


@dataclass(frozen=True)
class Found:
    """mark: ok | hurts (works, but worse) | fails (will not work) | unknown. Without a topic the words are a heading."""

    mark: str
    topic: str
    words: str


def check_ask(
    ask: Ask, partitions: dict[str, dict[str, str]], config: dict[str, str], preempted: bool, try_it: bool
) -> Iterator[Found]:
    """try_it: let sbatch say whether it would take such a job (it submits nothing)."""
    name = ask.partition or next((name for name, about in partitions.items() if about.get("Default") == "YES"), "")
    if not partitions:
        yield Found("unknown", "partition", "scontrol show partition does not answer")
        return
    if not name:
        yield Found("fails", "partition", f"the site has no default partition: set partition to one of {', '.join(partitions)}")
        return
    if name not in partitions:
        yield Found("fails", "partition", f"{name}: not one of {', '.join(partitions)}{nearest(name, partitions)}")
        return
    about = partitions[name]
    up = about.get("State", "UP") == "UP"
    default = "" if ask.partition else " (the site's default)"
    yield Found("ok" if up else "hurts", "partition", f"{name}{default}, {about.get('State', '?').lower()}")
    yield from check_time(ask, about)
    if preempted:
        yield from check_grace(about)
    shown, why = ask_slurm("sinfo", "--noheader", "--Node", f"--partition={name}", "--format=%N|%c|%m|%G|%f|%t")
    if shown is None:
        yield Found("unknown", "nodes", f"sinfo does not answer ({why})")
    else:
        yield check_nodes(ask, site.nodes(shown))
    if try_it:
        yield _would_take(ask)


def check_time(ask: Ask, about: dict[str, str]) -> Iterator[Found]:
    """The time limit against the partition's, and against what a checkpoint and submitit need."""
    limit = site.minutes(about.get("MaxTime", ""))
    if limit is not None and ask.minutes > limit:
        yield Found("fails", "time", f"minutes is {ask.minutes}, the partition allows {limit:.0f}: set minutes to that or less")
    elif 60 * ask.minutes <= ask.signal_delay_seconds + 60:
        yield Found(
            "fails", "time", f"the warning of {ask.signal_delay_seconds} s takes up all of minutes {ask.minutes}: raise minutes"
        )
    elif ask.minutes < 15:
        yield Found(
            "hurts", "time", f"minutes is {ask.minutes}: below 15 every preemption counts as one of the 100 timeouts of a job"
        )
    else:
        allowed = "no limit" if limit is None else f"{limit:.0f} allowed"
        yield Found("ok", "time", f"{ask.minutes} minutes ({allowed}); a cell that needs longer is requeued")


def check_grace(about: dict[str, str]) -> Iterator[Found]:
    """What a preempted cell of this partition is left with."""
    grace, mode = site.seconds(about.get("GraceTime", "")) or 0, about.get("PreemptMode", "")
    if mode == "OFF":
        yield Found("ok", "grace", "jobs of this partition are not preempted")
    elif grace < 30:
        told = "a preempted cell may be killed before its checkpoint is written and loses up to 30 s of training"
        yield Found("hurts", "grace", f"GraceTime={grace} s: {told}")
    else:
        yield Found("ok", "grace", f"GraceTime={grace} s")


def check_nodes(ask: Ask, nodes: list[site.Node]) -> Found:
    """Whether enough nodes have what one job asks of each."""
    cpus, memory = ask.processes // ask.nodes * ask.cpus, 1024 * ask.mem_gb
    wanted = [word for word in ask.constraint.replace("&", ",").split(",") if word] if ask.constraint.isascii() else []
    simple = bool(wanted) and all(word.replace("_", "").replace("-", "").replace(".", "").isalnum() for word in wanted)
    steps = [
        (f"{cpus} CPUs", lambda node: node.cpus >= cpus),
        (f"{ask.mem_gb} GB", lambda node: node.memory >= memory),
        (f"{ask.gpus} GPUs", lambda node: sum(node.gpus.values()) >= ask.gpus),
        (f"the features {ask.constraint}", lambda node: not simple or all(word in node.features for word in wanted)),
    ]
    left = list({node.name: node for node in nodes}.values())
    if not left:
        return Found("fails", "nodes", "the partition has no nodes")
    for what, has in steps:
        before, left = left, [node for node in left if has(node)]
        if len(left) < ask.nodes:
            best = max(before, key=lambda node: (sum(node.gpus.values()), node.memory, node.cpus))
            one = f"{best.cpus} CPUs, {best.memory // 1024} GB, {sum(best.gpus.values())} GPUs"
            return Found("fails", "nodes", f"{ask.nodes} with {what} needed, {len(left)} there; the largest has {one}")
    working = [node for node in left if node.works]
    if len(working) < ask.nodes:
        return Found("hurts", "nodes", f"{len(left)} fit, but only {len(working)} are up now, {ask.nodes} needed")
    return Found("ok", "nodes", f"{len(working)} fit ({ask.nodes} needed)")


def _would_take(ask: Ask) -> Found:
    """sbatch's own word: what no list of limits can say."""
    flags = [
        f"--time={ask.minutes}", f"--nodes={ask.nodes}", f"--ntasks-per-node={ask.processes // ask.nodes}",
        f"--cpus-per-task={ask.cpus}", f"--signal=USR2@{ask.signal_delay_seconds}", "--requeue",
    ]  # fmt: skip
    flags += [f"--mem={ask.mem_gb}G"] if ask.mem_gb else []
    flags += [f"--gpus-per-node={ask.gpus}"] if ask.gpus and "gpu" not in ask.gres else []
    flags += [
        f"--{name}={getattr(ask, name)}" for name in ("partition", "account", "qos", "constraint", "gres") if getattr(ask, name)
    ]
    flags += [f"--{name}" if value is True else f"--{name}={value}" for name, value in ask.extra]
    output, why = ask_slurm("sbatch", "--test-only", *flags, "--wrap=true")
    return Found("ok", "sbatch", "would take such a job") if output is not None else Found("fails", "sbatch", why)
