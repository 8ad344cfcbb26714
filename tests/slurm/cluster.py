"""A real SLURM on this one machine, thrown away after use: every daemon is a child of the tests, every file in one folder.

Nothing under /etc, /run or /var is used, so it needs no rights beyond those of whoever runs the tests, and several of these
stand side by side. Each disturbance has a partition with nodes of its own, so that many can happen at the same time.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.slurm.conf import GRES, NODES, slurm_conf, slurmdbd_conf

PROGRAMS = (
    "munged", "mariadb-install-db", "mariadbd", "slurmdbd", "slurmctld", "slurmd",
    "sbatch", "scancel", "scontrol", "squeue", "sinfo", "sacct", "srun",
)  # fmt: skip
_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])  # daemons are often off a user's PATH
_NOISE = re.compile("mpi/pmix|MPI: Cannot|xcpuinfo_hwloc|Domain socket|CPU frequency|CPUs=|state file|state save file|started")
_PATIENCE = 60.0  # seconds for one daemon to come up; on an idle machine they take less than one each


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
    """A cluster in a folder. root must be short: a unix socket's path may have about 100 characters.

    accounting=False leaves out slurmdbd and its database, as sites do where sacct answers nothing; it starts in a second.
    """

    def __init__(self, root: Path, accounting: bool = True) -> None:
        self.root, self.accounting = root, accounting
        self.conf = root / "slurm.conf"
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}  # a slurmd goes by the name of its node

    def environment(self) -> dict[str, str]:
        """What every program that talks to this cluster needs."""
        return {"SLURM_CONF": str(self.conf), "PATH": _PATH}

    def start(self) -> None:
        self.root.chmod(0o755)  # munge insists that its socket can be reached by all
        user = pwd.getpwuid(os.geteuid()).pw_name
        ctld, dbd, mysql, *slurmd = _free_ports(3 + len(NODES))
        for name in ("munge", "sock", "state", "spool", "log", "run", "gpu"):
            (self.root / name).mkdir(mode=0o755 if name == "sock" else 0o700)
        self.conf.write_text(slurm_conf(self.root, user, ctld, dbd if self.accounting else None, slurmd))
        for number in range(2):  # a device file that opens is all SLURM asks of a GPU
            (self.root / "gpu" / f"gpu{number}").symlink_to("/dev/null")
        # Nothing here uses cgroups; without this line a slurmd looks for them, and ends where it finds none or another version.
        (self.root / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        (self.root / "gres.conf").write_text(GRES.format(root=self.root))
        self._start_munge()
        if self.accounting:
            database = self.root / "slurmdbd.conf"
            database.touch(mode=0o600)
            database.write_text(slurmdbd_conf(self.root, user, dbd, mysql))
            self._start_database(user, mysql)
            self._daemon("slurmdbd", "-D", ready=lambda: _answers(dbd))
        self._daemon("slurmctld", "-D", ready=lambda: _answers(ctld))
        for node in NODES:
            self._daemon("slurmd", "-D", "-N", node, name=node, ready=lambda: True)
        self._until("every node is idle", lambda: set(self.run("sinfo", "-h", "-N", "-o", "%T").split()) == {"idle"})

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

    def _daemon(self, program: str, *arguments: str, ready: Callable[[], bool], name: str = "") -> None:
        """Start a daemon in the foreground as a child and wait until it answers."""
        path, name = shutil.which(program, path=_PATH), name or program
        assert path is not None, program
        with (self.root / "log" / f"{name}.out").open("wb") as out:
            self.daemons[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", path, *arguments],  # should the tests be killed
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=os.environ | self.environment(),
                start_new_session=True,  # Ctrl-C reaches the tests alone, which then stop the daemons in order
            )
        self._until(f"{name} answers", ready)

    def _until(self, what: str, ready: Callable[[], bool]) -> None:
        limit = time.monotonic() + _PATIENCE
        while not ready():
            dead = [name for name, process in self.daemons.items() if process.poll() is not None]
            if dead or time.monotonic() > limit:
                raise RuntimeError(f"waited in vain until {what}; ended: {', '.join(dead) or 'none'}\n{self.logs()}")
            time.sleep(0.05)

    def logs(self) -> str:
        """The end of every log, for the message of a test that failed."""
        ends = []
        for path in sorted(self.root.glob("log/*.log")) or sorted(self.root.glob("log/*")):
            lines = [line for line in path.read_text(errors="replace").splitlines() if not _NOISE.search(line)]
            ends.append(f"== {path.name}\n" + "\n".join(lines[-15:]))
        return "\n".join(ends)

    def run(self, *command: str) -> str:
        """One of SLURM's own commands against this cluster; its output."""
        return self._call(*command).stdout

    def told(self, *command: str) -> str:
        """What one of them says beside its output: errors."""
        return self._call(*command).stderr

    def _call(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, env=os.environ | self.environment(), capture_output=True, text=True, timeout=_PATIENCE)

    def queue(self, *options: str) -> list[str]:
        """The jobs that are not over, array tasks one by one: `ID STATE`."""
        return self.run("squeue", "--noheader", "--array", "--format=%i %T", *options).splitlines()

    def lose(self, node: str, job: str | None = None) -> None:
        """Kill the node's daemon without a word; with a job also all of its processes, as if the power were gone. Then say so:
        by itself the controller notices after SlurmdTimeout."""
        self.daemons[node].kill()
        self.daemons[node].wait()
        for pid in self.processes(job) if job else []:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.run("scontrol", "update", f"nodename={node}", "state=DOWN", "reason=test")

    def processes(self, job: str) -> list[int]:
        """The batch script, srun and the tasks of a job, and the slurmstepds above them."""
        mark, found = f"SLURM_JOB_ID={job}\0".encode(), []
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # gone meanwhile, or another user's
                step = (path / "cmdline").read_bytes().startswith(f"slurmstepd: [{job}.".encode())
                if step or mark in (path / "environ").read_bytes():
                    found.append(int(path.name))
        return [pid for pid in found if pid in self.leftovers()]

    def tasks(self, job: str) -> dict[int, int]:
        """Rank -> process of a job's tasks that srun has started; not what they have started in turn."""
        found = {}
        for pid in self.processes(job):
            with contextlib.suppress(OSError, KeyError):
                words = (Path("/proc") / str(pid) / "environ").read_bytes().decode(errors="replace").split("\0")
                parent = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[1]
                above = (Path("/proc") / parent / "cmdline").read_bytes()
                if above.startswith(f"slurmstepd: [{job}.0".encode()):
                    found[int(dict(word.split("=", 1) for word in words if "=" in word)["SLURM_PROCID"])] = pid
        return found

    def stop(self) -> None:
        """Ask the daemons in reverse order, then end every process that knows this cluster: steps outlive their daemons."""
        for process in reversed(self.daemons.values()):
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for pid in self.leftovers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        limit = time.monotonic() + 10
        while self.leftovers() and time.monotonic() < limit:  # killed, but not yet gone
            time.sleep(0.05)

    def leftovers(self) -> list[int]:
        """Processes of this cluster and of its jobs: they carry its SLURM_CONF in their environment."""
        mark, found = f"SLURM_CONF={self.conf}\0".encode(), []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):  # gone meanwhile, or another user's
                if int(path.parent.name) != os.getpid() and mark in path.read_bytes():
                    found.append(int(path.parent.name))
        return found
