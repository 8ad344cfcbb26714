"""Why a process is gone: real deaths of real processes, the kernel's own killer among them where this machine lets us."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from benchmark.launch.death import oom_kills, why_it_died


def ended(code: str) -> int:
    return subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL).returncode


def test_what_a_process_did_to_itself_is_its_code():
    assert why_it_died(ended("import sys; sys.exit(3)"))[0] == "code"
    for signum in ("SIGSEGV", "SIGABRT", "SIGBUS"):
        failure, words = why_it_died(ended(f"import os, signal; os.kill(os.getpid(), signal.{signum})"))
        assert failure == "code"
        assert signum in words
    assert why_it_died(ended("import ctypes; ctypes.string_at(0)"))[0] == "code"


def test_what_was_done_to_it_is_the_nodes():
    for name in ("SIGKILL", "SIGTERM", "SIGHUP", "SIGRTMIN"):  # one may be ignored where the tests were started by nohup
        heed = "" if name == "SIGKILL" else f"signal.signal(signal.{name}, signal.SIG_DFL); "
        failure, words = why_it_died(ended(f"import os, signal; {heed}os.kill(os.getpid(), signal.{name})"))
        assert failure == "node"
        assert "from outside" in words
    assert why_it_died(-signal.SIGKILL, starved=True)[0] == "oom"
    assert why_it_died(-signal.SIGTERM, starved=True)[0] == "node"  # the killer of the kernel kills with KILL


def test_the_kernels_killer_is_told_by_its_counter(control_group):
    """The child counts before, a grandchild eats 256 MiB of the 64 there are and is killed, the child counts after."""
    group = control_group(64)
    code = f"""
import os, pathlib, subprocess, sys
pathlib.Path({str(group / "cgroup.procs")!r}).write_text(str(os.getpid()))
from benchmark.launch.death import oom_kills, why_it_died
before = oom_kills()
eaten = subprocess.run([sys.executable, "-c", "x = b'1' * (256 << 20)"])
sys.stdout.write(" ".join([str(before), str(oom_kills()), *why_it_died(eaten.returncode, oom_kills() > before)]))
"""
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, env=dict(os.environ))
    before, after, failure = done.stdout.split()[:3]
    assert int(after) == int(before) + 1, done.stderr
    assert failure == "oom"


def test_counters_of_every_layout_are_read(tmp_path):
    """Which file is read, by the layouts that kernels have; what cannot be read says nothing, which is not zero."""
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    assert oom_kills(proc, groups) is None
    (proc / "vmstat").write_text("nr_free_pages 5\noom_kill 7\n")
    assert oom_kills(proc, groups) == 7
    (proc / "self/cgroup").write_text("0::/a/b\n")
    assert oom_kills(proc, groups) == 7  # a group that is not visible from here
    (groups / "a/b").mkdir(parents=True)
    (groups / "a/b/memory.events").write_text("low 0\noom 2\noom_kill 3\noom_group_kill 0\n")
    assert oom_kills(proc, groups) == 3
    (proc / "self/cgroup").write_text("5:cpu:/\n4:memory:/x\n0::/\n")
    (groups / "memory/x").mkdir(parents=True)
    (groups / "memory/x/memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 4\n")
    assert oom_kills(proc, groups) == 4
