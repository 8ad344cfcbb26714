"""The configuration files of the throw-away cluster."""

from __future__ import annotations

import socket
from pathlib import Path

NODES = {"node1": 8, "narrow": 2, "frail1": 2, "frail2": 2, "split1": 2, "split2": 2}  # CPUs, made up: small cells share two
MAX_ARRAY = 4  # MaxArraySize: the largest index is one less

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
MaxArraySize={max_array}
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=1
KillWait=30
MinJobAge=300
SlurmctldTimeout=60
SlurmdTimeout=60
MessageTimeout=20
BatchStartTimeout=20
InactiveLimit=0
GresTypes=gpu
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
"""
_ACCOUNTING = """
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={dbd}
AccountingStoragePass={root}/sock/munge.sock
AccountingStorageTRES=gres/gpu
"""
_NO_ACCOUNTING = """
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
"""
_NODE = (
    "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} Boards=1 SocketsPerBoard=1 "
    "CoresPerSocket={cpus} ThreadsPerCore=1 RealMemory=16000 Gres=gpu:2 State=UNKNOWN\n"
)
# On narrow there is room for one cell of `low` or for one job of `high`, which takes its place.
_PARTITIONS = """
PartitionName=debug Nodes=node1 Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=low Nodes=narrow MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=60
PartitionName=high Nodes=narrow MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
PartitionName=frail Nodes=frail1,frail2 MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=split Nodes=split1,split2 MaxTime=INFINITE State=UP PriorityTier=1
"""
GRES = "Name=gpu File={root}/gpu/gpu[0-1]\n"
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


def slurm_conf(root: Path, user: str, ctld: int, dbd: int | None, slurmd: list[int]) -> str:
    """slurm.conf: ctld, dbd (None: no accounting) and slurmd (one a node) are ports."""
    host = socket.gethostname().split(".")[0]
    text = _SLURM_CONF.format(root=root, host=host, user=user, ctld=ctld, max_array=MAX_ARRAY)
    text += _NO_ACCOUNTING if dbd is None else _ACCOUNTING.format(root=root, dbd=dbd)
    for (name, cpus), port in zip(NODES.items(), slurmd, strict=True):
        text += _NODE.format(name=name, host=host, port=port, cpus=cpus)
    return text + _PARTITIONS


def slurmdbd_conf(root: Path, user: str, dbd: int, mysql: int) -> str:
    return _SLURMDBD_CONF.format(root=root, user=user, dbd=dbd, mysql=mysql)
