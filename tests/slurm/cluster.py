"""A real SLURM on this one machine, thrown away after use: every daemon is a child of the tests, every file in one folder.

Nothing under /etc, /run or /var is used, so it needs no rights beyond those of whoever runs the tests, and several of these
stand side by side. Accounting is part of it: what a step was given can then still be asked when it is over.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

PROGRAMS = (
    "munged", "mariadb-install-db", "mariadbd", "slurmdbd", "slurmctld", "slurmd",
    "sbatch", "scancel", "scontrol", "squeue", "sinfo", "sacct", "srun",
)  # fmt: skip
_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])  # daemons are often off a user's PATH
_PATIENCE = 60.0  # seconds for one daemon to come up; on an idle machine they take less than one each
_CPUS = 8  # made up: small cells share the machine, and what is tested is the launcher, not speed

_SLURM_CONF = """
ClusterName=retable
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthType=auth/munge
CredType=cred/munge
# A requeued job may start again once its old credential has expired: 120 s by default.
AuthInfo=socket={root}/sock/munge.sock,cred_expire=5
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool/%n
SlurmctldPidFile={root}/run/slurmctld.pid
SlurmdPidFile={root}/run/slurmd.%n.pid
SlurmctldLogFile={root}/log/slurmctld.log
SlurmdLogFile={root}/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
MailProg=/bin/true
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
# Without this a node with more CPUs than the machine has is refused.
SlurmdParameters=config_overrides
ReturnToService=2
JobRequeue=1
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=1
KillWait=30
MinJobAge=300
SlurmctldTimeout=30
SlurmdTimeout=30
MessageTimeout=20
BatchStartTimeout=20
InactiveLimit=0
GresTypes=gpu
PreemptType=preempt/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={dbd}
AccountingStoragePass={root}/sock/munge.sock
AccountingStorageTRES=gres/gpu
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 Port={slurmd} CPUs={cpus} Boards=1 SocketsPerBoard=1 \
CoresPerSocket={cpus} ThreadsPerCore=1 RealMemory=16000 Gres=gpu:2 State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
_SLURMDBD_CONF = """
AuthType=auth/munge
AuthInfo=socket={root}/sock/munge.sock
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={dbd}
SlurmUser={user}
LogFile={root}/log/slurmdbd.log
PidFile={root}/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={mysql}
StorageUser=root
StoragePass=x
StorageLoc=slurm_acct
"""


def missing() -> list[str]:
    """The programs of a SLURM cluster that this machine does not have."""
    return [name for name in PROGRAMS if shutil.which(name, path=_PATH) is None]


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Cluster:
    """One node, one partition named debug. root must be short: a unix socket's path may have about 100 characters."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.conf = root / "slurm.conf"
        self.daemons: list[subprocess.Popen[bytes]] = []

    def environment(self) -> dict[str, str]:
        """What every program that talks to this cluster needs."""
        return {"SLURM_CONF": str(self.conf), "PATH": _PATH}

    def start(self) -> None:
        self.root.chmod(0o755)  # munge insists that its socket can be reached by all
        host, user = socket.gethostname().split(".")[0], pwd.getpwuid(os.geteuid()).pw_name
        ctld, slurmd, dbd, mysql = _free_ports(4)
        for name in ("munge", "sock", "state", "spool", "log", "run", "gpu"):
            (self.root / name).mkdir(mode=0o755 if name == "sock" else 0o700)
        names = {"root": self.root, "host": host, "user": user, "dbd": dbd}
        self.conf.write_text(_SLURM_CONF.format(**names, ctld=ctld, slurmd=slurmd, cpus=_CPUS))
        database = self.root / "slurmdbd.conf"
        database.touch(mode=0o600)
        database.write_text(_SLURMDBD_CONF.format(**names, mysql=mysql))
        for number in range(2):  # a device file that opens is all SLURM asks of a GPU
            (self.root / "gpu" / f"gpu{number}").symlink_to("/dev/null")
        (self.root / "gres.conf").write_text(f"Name=gpu File={self.root}/gpu/gpu[0-1]\n")
        self._start_munge()
        self._start_database(user, mysql)
        self._daemon("slurmdbd", "-D", ready=lambda: _answers(dbd))
        self._daemon("slurmctld", "-D", ready=lambda: _answers(ctld))
        self._daemon("slurmd", "-D", "-N", "node1", ready=lambda: self.run("sinfo", "-h", "-o", "%T").strip() == "idle")

    def _start_munge(self) -> None:
        key, socket_file = self.root / "munge" / "munge.key", self.root / "sock" / "munge.sock"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
        self._daemon(
            "munged", "-F", f"--key-file={key}", f"--socket={socket_file}", f"--pid-file={self.root}/run/munged.pid",
            f"--log-file={self.root}/munge/munged.log", f"--seed-file={self.root}/munge/munged.seed", "--num-threads=2",
            ready=socket_file.exists,
        )  # fmt: skip

    def _start_database(self, user: str, port: int) -> None:
        """Without grants, reachable from this machine alone: it lives as long as the tests."""
        small = ("--innodb-log-file-size=8M", "--innodb-flush-log-at-trx-commit=0", "--skip-name-resolve")
        where = ("--no-defaults", f"--user={user}", f"--datadir={self.root}/mysql")
        self.run("mariadb-install-db", *where, *small, "--auth-root-authentication-method=normal", "--skip-test-db")
        self._daemon(
            "mariadbd", *where, *small, f"--socket={self.root}/sock/my.sock", f"--port={port}", "--bind-address=127.0.0.1",
            f"--pid-file={self.root}/run/my.pid", "--skip-log-bin", "--skip-grant-tables", "--innodb-doublewrite=0",
            "--innodb-buffer-pool-size=64M", "--innodb-lock-wait-timeout=900", ready=lambda: _answers(port),
        )  # fmt: skip

    def _daemon(self, name: str, *arguments: str, ready: Callable[[], bool]) -> None:
        """Start a daemon in the foreground as a child and wait until it answers."""
        program = shutil.which(name, path=_PATH)
        assert program is not None, name
        with (self.root / "log" / f"{name}.out").open("wb") as out:
            process = subprocess.Popen(
                [program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=os.environ | self.environment(),
                start_new_session=True,  # Ctrl-C reaches the tests alone, which then stop the daemons in order
            )
        self.daemons.append(process)
        limit = time.monotonic() + _PATIENCE
        while not ready():
            if process.poll() is not None or time.monotonic() > limit:
                raise RuntimeError(f"{name} did not come up:\n{self.logs()}")
            time.sleep(0.05)

    def logs(self) -> str:
        """The end of every log, for the message of a test that failed."""
        ends = []
        for path in sorted(self.root.glob("log/*")):
            ends.append(f"== {path.name}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-15:]))
        return "\n".join(ends)

    def run(self, *command: str) -> str:
        """One of SLURM's own commands against this cluster; its output."""
        done = subprocess.run(command, env=os.environ | self.environment(), capture_output=True, text=True, timeout=_PATIENCE)
        return done.stdout

    def queue(self, format: str = "%i %T") -> list[str]:
        """The jobs that are not over, array tasks one by one."""
        return self.run("squeue", "--noheader", "--array", f"--format={format}").splitlines()

    def clear(self) -> None:
        """Cancel what is left and wait until it is gone: the next test finds the cluster empty."""
        self.run("scancel", f"--user={pwd.getpwuid(os.geteuid()).pw_name}")
        limit = time.monotonic() + _PATIENCE
        while self.queue() and time.monotonic() < limit:
            time.sleep(0.2)
        assert not self.queue(), self.logs()

    def stop(self) -> None:
        """Ask the daemons in reverse order, then end every process that knows this cluster: steps outlive their daemons."""
        for process in reversed(self.daemons):
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for pid in self.leftovers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def leftovers(self) -> list[int]:
        """Processes of jobs of this cluster: they carry its SLURM_CONF in their environment."""
        mark, found = f"SLURM_CONF={self.conf}\0".encode(), []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):  # gone meanwhile, or another user's
                if int(path.parent.name) != os.getpid() and mark in path.read_bytes():
                    found.append(int(path.parent.name))
        return found
