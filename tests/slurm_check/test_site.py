"""The check of a site: what SLURM's programs print, and what follows from it. The outputs are those of SLURM 22.05."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.launch.cluster import Ask
from slurm import site
from slurm.asks import check_grace, check_nodes, check_time
from slurm.check import check_config

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """Configuration data as of 2026-11-23T05:27:26
AccountingStorageType   = accounting_storage/slurmdbd
BurstBufferType         = (null)
EpilogMsgTime           = 2000 usec
JobRequeue              = 1
KillWait                = 30 sec
MaxArraySize            = 1001
PluginDir               =
PreemptMode             = REQUEUE
PreemptType             = preempt/partition_prio
RequeueExit             = (null)
SlurmctldParameters     = preempt_send_user_signal,enable_configless
SLURM_VERSION           = 22.05.8

Slurmctld(primary) at vm is UP
"""
PARTITION = (
    "PartitionName=low AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL Default=NO QoS=N/A DefaultTime=NONE GraceTime=60 "
    "MaxNodes=UNLIMITED MaxTime=2-00:00:00 Nodes=narrow PriorityTier=1 PreemptMode=REQUEUE State=UP TotalCPUs=2\n"
    "PartitionName=debug Default=YES GraceTime=0 MaxTime=UNLIMITED PreemptMode=OFF State=DRAIN\n"
)
NODES = """gpu1|64|512000|gpu:a100:8(S:0-1)|a100,ib|mix
gpu2|64|512000|gpu:a100:8(S:0-1)|a100,ib|idle
gpu3|64|512000|gpu:a100:8(S:0-1)|a100,ib|drain*
old1|16|64000|gpu:2|(null)|alloc
"""


def marks(found):
    return {one.topic: one.mark for one in found}


def test_a_config_is_read_line_by_line():
    config = site.config(CONFIG)
    assert config["PreemptMode"] == "REQUEUE"  # an empty value before it must not swallow it
    assert config["PluginDir"] == config["BurstBufferType"] == ""
    assert (config["MaxArraySize"], config["KillWait"]) == ("1001", "30 sec")


def test_a_good_site_has_nothing_that_hurts():
    assert set(marks(check_config(site.config(CONFIG))).values()) == {"ok"}


@pytest.mark.parametrize(
    "before, after, topic, word",
    [
        ("preempt_send_user_signal,", "", "warning", "no preempt_send_user_signal"),
        ("= REQUEUE", "= CANCEL", "preemption", "may not come back"),
        ("= REQUEUE", "= GANG,SUSPEND", "preemption", "suspended"),
        ("JobRequeue              = 1", "JobRequeue              = 0", "requeue", "JobRequeue=0"),
        ("RequeueExit             = (null)", "RequeueExit             = 1,2", "requeue", "again and again"),
        ("= 30 sec", "= 5 sec", "kill", "KillWait=5 s"),
    ],
)
def test_what_hurts_is_said_with_its_consequence(before, after, topic, word):
    assert before in CONFIG
    found = [one for one in check_config(site.config(CONFIG.replace(before, after))) if one.mark == "hurts"]
    assert [one.topic for one in found] == [topic]
    assert word in found[0].words


def test_a_site_without_preemption_needs_no_warning():
    text = CONFIG.replace("partition_prio", "none").replace("preempt_send_user_signal", "x")
    assert set(marks(check_config(site.config(text))).values()) == {"ok"}


def test_partitions_and_their_times():
    found = site.partitions(PARTITION)
    assert list(found) == ["low", "debug"]
    assert site.minutes(found["low"]["MaxTime"]) == 2880
    assert site.minutes(found["debug"]["MaxTime"]) is None


@pytest.mark.parametrize(
    "text, minutes", [("30:00", 30), ("45", 45), ("04:00:00", 240), ("1-00:00:00", 1440), ("2-12", 3600), ("00:00:30", 0.5)]
)
def test_times_as_slurm_prints_them(text, minutes):
    assert site.minutes(text) == minutes


@pytest.mark.parametrize(
    "gres, gpus",
    [
        ("gpu:2", {"": 2}),
        ("gpu:a100:8(S:0-1)", {"a100": 8}),
        ("gpu:a100_3g.20gb:4(S:0),nvme:1", {"a100_3g.20gb": 4}),
        ("gpu:v100:2,gpu:a100:4", {"v100": 2, "a100": 4}),
        ("nvme:1", {}),
        ("(null)", {}),
    ],
)
def test_gpus_of_a_node(gres, gpus):
    assert site.gpus(gres) == gpus


def test_nodes_and_whether_they_work():
    found = site.nodes(NODES)
    assert [node.name for node in found if node.works] == ["gpu1", "gpu2", "old1"]
    assert (found[0].memory, found[0].features, found[3].features) == (512000, ("a100", "ib"), ())


@pytest.mark.parametrize(
    "ask, mark, word",
    [
        (Ask(gpus=8, nodes=2, cpus=8, mem_gb=200), "ok", "2 fit"),
        (Ask(gpus=8, nodes=3, cpus=8, mem_gb=200), "hurts", "3 fit, but only 2 are up"),
        (Ask(gpus=8, nodes=4, cpus=8, mem_gb=200), "fails", "4 with 64 CPUs needed, 3 there"),
        (Ask(gpus=8, nodes=1, cpus=16, mem_gb=200), "fails", "1 with 128 CPUs needed, 0 there"),
        (
            Ask(gpus=1, nodes=1, cpus=1, mem_gb=600),
            "fails",
            "0 there; the largest has 64 CPUs, 500 GB, 8 GPUs",
        ),
        (Ask(gpus=16, nodes=1, cpus=1, mem_gb=1), "fails", "1 with 16 GPUs needed, 0 there"),
        (Ask(gpus=1, nodes=1, cpus=1, mem_gb=1, constraint="h100"), "fails", "the features h100"),
        (Ask(gpus=1, nodes=2, cpus=1, mem_gb=1, constraint="a100&ib"), "ok", "2 fit"),
        (Ask(gpus=1, nodes=1, cpus=1, mem_gb=1, constraint="h100|a100"), "ok", "3 fit"),  # left to sbatch
    ],
)
def test_whether_enough_nodes_have_it(ask, mark, word):
    found = check_nodes(ask, site.nodes(NODES))
    assert found.mark == mark and word in found.words, found


@pytest.mark.parametrize(
    "ask, mark",
    [(Ask(minutes=2880), "ok"), (Ask(minutes=2881), "fails"), (Ask(minutes=10), "hurts"), (Ask(minutes=3), "fails")],
)
def test_the_time_limit_against_the_partition(ask, mark):
    (found,) = check_time(ask, site.partitions(PARTITION)["low"])
    assert found.mark == mark, found


def test_the_grace_of_a_partition():
    found = site.partitions(PARTITION)
    assert [one.mark for one in check_grace(found["low"])] == ["ok"]
    assert [one.mark for one in check_grace(found["debug"])] == ["ok"]  # not preempted
    assert [one.mark for one in check_grace(found["debug"] | {"PreemptMode": "REQUEUE"})] == ["hurts"]


def test_what_a_folder_lies_on():
    mounts = (
        "/dev/sda1 / ext4 rw 0 0\nserver:/home /home nfs4 rw 0 0\n"
        "l:/x /home/with\\040space lustre rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n"
    )
    assert site.storage("/home/me/runs", mounts) == "nfs4"
    assert site.storage("/homes/me", mounts) == "ext4"
    assert site.storage("/home/with space/runs", mounts) == "lustre"
    assert site.storage("/tmp/x", mounts) == "tmpfs"


def check(*words, **environment):
    command = [sys.executable, "-m", "slurm.check", *words]
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=60)


def test_a_machine_without_slurm_is_told_where_to_go(tmp_path):
    done = check("--store", str(tmp_path), PATH=str(tmp_path))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "fails    programs" in done.stdout and "start this on a login node" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_a_wrong_profile_is_bad_input(tmp_path):
    path = tmp_path / "site.yaml"
    path.write_text("gpu: 1\n")
    done = check("--cluster", str(path))
    assert done.returncode == 2, done.stdout + done.stderr
    assert f"error: {path}:1: gpu: unknown key" in done.stderr and "did you mean 'gpus'?" in done.stderr
    assert done.stdout == ""
