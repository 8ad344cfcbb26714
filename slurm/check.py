"""python -m slurm.check [--cluster FILE] [--store DIR]: what of this site fits, what hurts and what will not work.

Only asks, never submits: scontrol, sinfo, sacct, sacctmgr and `sbatch --test-only`. A line for each thing looked at.
Exit codes: 0 it fits, 1 something will not work, 2 bad input.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from benchmark.errors import InputError, nearest
from benchmark.launch.cluster import Ask, Cluster, read_cluster
from benchmark.launch.jobs import ask_slurm
from slurm import site
from slurm.asks import Found, check_ask

_SHARED = (
    "nfs",
    "lustre",
    "gpfs",
    "beegfs",
    "ceph",
    "afs",
    "glusterfs",
    "panfs",
    "wekafs",
    "orangefs",
    "pvfs",
    "vast",
    "cifs",
    "9p",
)
_NEEDED = ("sbatch", "srun", "squeue", "scontrol", "scancel", "sinfo")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m slurm.check",
        description="What of this SLURM site fits, what hurts, and what will not work. Submits nothing.",
        epilog="exit codes: 0 it fits, 1 something will not work, 2 bad input",
    )
    parser.add_argument("--cluster", type=Path, help="a file of slurm/clusters/, to be held against the site")
    parser.add_argument("--store", type=Path, default=Path(os.environ.get("RETABLE_STORE") or "runs"))
    args = parser.parse_args(argv)
    try:
        cluster = read_cluster(args.cluster) if args.cluster else None
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    worst = False
    for found in look(cluster, args.store):
        worst = worst or found.mark == "fails"
        print(f"{found.mark:<8} {found.topic:<12} {found.words}" if found.topic else f"\n{found.words}", flush=True)
    print(f"\n{'Something will not work: see the lines that begin with fails.' if worst else 'It fits.'}")
    return 1 if worst else 0


def look(cluster: Cluster | None, store: Path) -> Iterator[Found]:
    """Every finding, as it is made; the site first, then each thing that a profile asks for."""
    yield from _programs()
    shown, why = ask_slurm("scontrol", "show", "config")
    if shown is None:
        yield Found("fails", "controller", f"scontrol show config does not answer ({why}): start this on a login node")
        return
    config = site.config(shown)
    yield Found("ok", "controller", f"cluster {config.get('ClusterName', '?')}, SLURM {config.get('SLURM_VERSION', '?')}")
    yield from check_config(config)
    yield _accounting(config)
    yield from _limits(cluster, config)
    yield _storage(store)
    partitions = site.partitions(ask_slurm("scontrol", "show", "partition", "--oneliner")[0] or "")
    for title, ask in _asks(cluster):
        if cluster is not None:
            yield Found("", "", f"{title}: {ask.words}")
        yield from check_ask(ask, partitions, config, preempted=_preempts(config), try_it=cluster is not None)


def _programs() -> Iterator[Found]:
    lacking = [name for name in _NEEDED if ask_slurm(name, "--version")[0] is None]
    if lacking:
        yield Found("fails", "programs", f"{', '.join(lacking)} missing or not answering here: start this on a login node")
    else:
        yield Found("ok", "programs", ", ".join(_NEEDED))
    try:
        version = importlib.metadata.version("submitit")
    except importlib.metadata.PackageNotFoundError:
        yield Found("fails", "submitit", "not installed: pip install submitit")
        return
    old = tuple(int(part) for part in version.split(".")[:3] if part.isdecimal()) < (1, 5, 3)
    yield Found("fails" if old else "ok", "submitit", f"{version}{'; 1.5.3 or later is needed' if old else ''}")


def _preempts(config: dict[str, str]) -> bool:
    return config.get("PreemptType", "preempt/none") != "preempt/none"


def check_config(config: dict[str, str]) -> Iterator[Found]:
    """What `scontrol show config` tells of requeueing, warnings and arrays."""
    own = "; jobs ask for it themselves (--requeue), test that it is granted" if config.get("JobRequeue") == "0" else ""
    yield Found("hurts" if own else "ok", "requeue", f"JobRequeue={config.get('JobRequeue', '?')}{own}")
    failing = config.get("RequeueExit", "")
    if {"1", "1-255"} & set(failing.split(",")):
        yield Found("hurts", "requeue", f"RequeueExit={failing}: a cell that fails is started again and again; scancel it")
    warned = "preempt_send_user_signal" in config.get("SlurmctldParameters", "") + config.get("PreemptParameters", "")
    mode = config.get("PreemptMode", "")
    if not _preempts(config):
        yield Found("ok", "preemption", "none on this site")
    elif "SUSPEND" in mode or "GANG" in mode:
        yield Found(
            "hurts", "preemption", f"PreemptMode={mode}: a suspended cell looks dead after two minutes and may be run twice"
        )
    elif "CANCEL" in mode:
        yield Found(
            "hurts", "preemption", f"PreemptMode={mode}: a preempted cell may not come back; start the same command again"
        )
    else:
        yield Found("ok", "preemption", f"{config['PreemptType']}, PreemptMode={mode}")
    if _preempts(config):
        told = "preempt_send_user_signal is set: a preempted cell is told by USR2"
        untold = "no preempt_send_user_signal in SlurmctldParameters: a preempted cell gets TERM alone, and heeds that"
        yield Found("ok" if warned else "hurts", "warning", told if warned else untold)
    wait = site.seconds(config.get("KillWait", ""))
    if wait is not None:
        short = "; a checkpoint may take longer, then the last periodic one counts" if wait < 15 else ""
        yield Found("hurts" if short else "ok", "kill", f"KillWait={wait} s between TERM and KILL{short}")


def _accounting(config: dict[str, str]) -> Found:
    output, why = ask_slurm("sacct", "--noheader", "--parsable2", "--format=JobID", "--starttime=now")
    if output is not None:
        return Found("ok", "accounting", f"sacct answers ({config.get('AccountingStorageType', '?')})")
    rest = "a cell's state is read from its files all the same, but why a job died only from its log"
    return Found("hurts", "accounting", f"sacct does not answer here ({why}): {rest}")


def _limits(cluster: Cluster | None, config: dict[str, str]) -> Iterator[Found]:
    """How many jobs there may be: in one array, and of one user."""
    most = int(config.get("MaxArraySize") or 0)
    if most <= 1:
        yield Found("hurts", "arrays", f"MaxArraySize={most}: arrays are off, every cell becomes a job of its own")
    elif cluster is not None and cluster.array_limit > most:
        yield Found(
            "ok", "arrays", f"MaxArraySize={most} is below array_limit {cluster.array_limit}: arrays of {most} are submitted"
        )
    else:
        yield Found("ok", "arrays", f"MaxArraySize={most}")
    shown, why = ask_slurm(
        "sacctmgr", "--noheader", "--parsable2", "show", "assoc", f"user={_user()}", "format=Account,Partition,QOS,MaxSubmit"
    )
    if shown is None:
        yield Found("unknown", "accounts", f"sacctmgr does not answer ({why}): accounts and limits are not known")
        return
    rows = site.table(shown, "account", "partition", "qos", "submit")
    accounts = sorted({row["account"] for row in rows})
    asked = sorted({ask.account for _, ask in _asks(cluster) if ask.account})
    for account in asked:
        if accounts and account not in accounts:
            told = f"{account}: not one of yours; allowed: {', '.join(accounts)}{nearest(account, accounts)}"
            yield Found("fails", "accounts", told)
    if not asked or set(asked) <= set(accounts):
        yield Found("ok", "accounts", f"yours: {', '.join(accounts) or 'none are kept here'}")
    allowed = {word for row in rows for word in site.listed(row.get("qos", ""))}
    for qos in sorted({ask.qos for _, ask in _asks(cluster) if ask.qos}):
        fits = not allowed or qos in allowed
        names = ", ".join(sorted(allowed))
        yield Found(
            "ok" if fits else "fails",
            "qos",
            qos if fits else f"{qos}: not one of yours; allowed: {names}{nearest(qos, allowed)}",
        )
    numbers = [int(row["submit"]) for row in rows if row.get("submit", "").isdecimal()]
    if numbers and (cluster is None or not 0 < cluster.submit_limit <= min(numbers)):
        yield Found("hurts", "submit limit", f"you may have {min(numbers)} jobs in the queue: set submit_limit to that or less")


def _storage(store: Path) -> Found:
    try:
        kind = site.storage(str(store.resolve()), Path("/proc/mounts").read_text())
    except OSError:
        kind = ""
    if kind.startswith(_SHARED) or any(word in kind for word in _SHARED):
        return Found("ok", "store", f"{store} lies on {kind}")
    if kind in ("tmpfs", "ramfs"):
        return Found(
            "fails", "store", f"{store} lies in this machine's memory ({kind}): give --store a folder that the nodes share"
        )
    told = f"{store} lies on {kind or 'an unknown file system'}, which looks local: the nodes must see it under the same path"
    return Found("unknown", "store", told)


def _asks(cluster: Cluster | None) -> list[tuple[str, Ask]]:
    """What is asked for: by most cells, and by those that each rule alone is about."""
    if cluster is None:
        return [("without a profile", Ask(gpus=0, cpus=1, mem_gb=0))]
    return [("most cells", cluster.ask), *((rule.where, replace(cluster.ask, **rule.changes)) for rule in cluster.rules)]


def _user() -> str:
    import pwd

    return pwd.getpwuid(os.geteuid()).pw_name


if __name__ == "__main__":
    sys.exit(main())
