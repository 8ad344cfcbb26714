"""Cluster profiles: rules, what each cell asks for, how cells are cut into arrays. No SLURM is needed for any of it."""

import shlex
from pathlib import Path

import pytest

from benchmark.errors import InputError
from benchmark.launch.cluster import Ask, Cluster, read_cluster
from benchmark.launch.slurm import chunked, options, shared_out
from benchmark.launch.work import Work

ROOT = Path(__file__).resolve().parents[2]
VIT = {"method": "dino", "encoder": {"name": "vit_base"}, "epochs": 100, "optimizer": {"name": "adamw"}, "seed": 0}
SMALL = {"method": "byol", "encoder": {"name": "resnet18"}, "epochs": 100, "optimizer": {"name": "sgd"}, "seed": 1}


def profile(tmp_path, text):
    path = tmp_path / "site.yaml"
    path.write_text(text)
    return read_cluster(path)


def refusal(tmp_path, text, config=None):
    with pytest.raises(InputError) as caught:
        cluster = profile(tmp_path, text)
        if config is not None:
            cluster.ask_for(config)
    return str(caught.value)


@pytest.mark.parametrize("path", sorted((ROOT / "slurm" / "clusters").glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_profile_is_read_and_each_rule_makes_sense(path):
    cluster = read_cluster(path)
    for rule in cluster.rules:
        config: dict = {}
        for condition in rule.conditions:
            *above, last = condition.key.split(".")
            inner = config
            for part in above:
                inner = inner.setdefault(part, {})
            inner[last] = condition.values[0]
        assert rule.matches(config)
        assert cluster.ask_for(config) != cluster.ask, rule.where


def test_the_example_says_the_defaults():
    path = ROOT / "slurm" / "clusters" / "example.yaml"
    assert read_cluster(path) == Cluster(path)


RULES = """
gpus: 1
minutes: 60
cells:
  - {when: {method: [mocov3, dino], encoder.name: vit_base}, gpus: 8, nodes: 2, minutes: 1440}
  - when: {encoder: {name: vit_base}}
    minutes: 90
  - {when: {optimizer.name: sgd}, mem_gb: 7}
"""


def test_every_rule_that_matches_is_applied_and_the_lower_one_wins(tmp_path):
    cluster = profile(tmp_path, RULES)
    asked = cluster.ask_for(VIT)
    assert (asked.gpus, asked.nodes, asked.processes, asked.minutes, asked.mem_gb) == (8, 2, 16, 90, 32)
    asked = cluster.ask_for(SMALL)
    assert (asked.gpus, asked.nodes, asked.processes, asked.minutes, asked.mem_gb) == (1, 1, 1, 60, 7)
    assert cluster.ask_for(VIT | {"method": "simclr"}).gpus == 1  # all conditions of a rule must hold


def test_a_rule_sees_what_a_config_leaves_out_at_its_default(tmp_path):
    cluster = profile(
        tmp_path, "cells: [{when: {optimizer.clip_by: all}, mem_gb: 5}, {when: {optimizer.lars: google}, mem_gb: 6}]"
    )
    assert cluster.ask_for(SMALL).mem_gb == 5
    assert cluster.ask_for(SMALL | {"optimizer": {"name": "lars", "lars": "google"}}).mem_gb == 6
    assert cluster.ask_for({"method": "random", "encoder": {"name": "resnet18"}}).mem_gb == 5


def test_one_is_not_true(tmp_path):
    """Python takes 1 for true; a rule about a switch is not about a number."""
    cluster = profile(tmp_path, "cells: [{when: {epochs: 1}, mem_gb: 5}]")
    assert cluster.ask_for(SMALL | {"epochs": True}).mem_gb == 32
    assert cluster.ask_for(SMALL | {"epochs": 1}).mem_gb == 5


@pytest.mark.parametrize(
    "text, words",
    [
        ("cells: [{when: {metod: byol}, gpus: 2}]", ["site.yaml:1: cells > [0] > when > metod", "did you mean 'method'?"]),
        ("cells: [{when: {encoder: {nme: a}}, gpus: 2}]", ["when > encoder > nme", "did you mean 'encoder.name'?"]),
        ("cells: [{when: {method: byoll}, gpus: 2}]", ["unknown value 'byoll'", "did you mean 'byol'?"]),
        ("cells: [{when: {epochs: many}, gpus: 2}]", ["epochs: expected a whole number, found the text 'many'"]),
        ("cells: [{when: {epochs: []}, gpus: 2}]", ["expected a value or a list of values, found []"]),
        ("cells:\n  - {when: {method: byol}, gpu: 2}", ["site.yaml:2: cells > [0] > gpu: unknown key", "did you mean 'gpus'?"]),
        ("cells: [{when: {method: byol}, array_limit: 2}]", ["array_limit: holds for the whole site"]),
        ("cells: [{when: {method: byol}, gpus: -2}]", ["gpus: expected 0 or more, found -2"]),
        ("cells: [{when: {method: byol}}]", ["this rule changes nothing"]),
        ("cells: [{gpus: 2}]", ["expected a rule such as {when: {method: dino}, gpus: 8}"]),
        ("cells: {gpus: 2}", ["site.yaml:1: cells: expected a list of rules"]),
        ("gpus: 2\nranks: 3", ["ranks is 3, but with GPUs a cell has gpus x nodes = 2 processes"]),
        ("gpus: 0\nranks: 3\nnodes: 2", ["3 ranks cannot be shared evenly by 2 nodes"]),
        ("gpus: 2\ngres: gpu:a100:4", ["gres asks for 4 GPUs a node, gpus for 2"]),
        ("snapshot: 1", ["snapshot: expected true or false, found 1"]),
        ("extra: {time: 30}", ["extra > time: this option of sbatch cannot be given under extra; say minutes instead"]),
        ("extra: {open_mode: append}", ["this option of sbatch cannot be given under extra; this program needs its own"]),
        ("extra: {x: 1}", ["expected a long option of sbatch", "found 'x'"]),
        ("extra: {nice: [1]}", ["expected a text, a number or true"]),
        ("extra: [nice]", ["extra: expected a mapping"]),
    ],
)
def test_what_is_wrong_is_one_sentence(tmp_path, text, words):
    said = refusal(tmp_path, text)
    assert all(word in said for word in words), said
    assert "\n" not in said


def test_rules_that_make_no_sense_together_name_the_last_of_them(tmp_path):
    text = "gpus: 0\nranks: 2\ncells:\n  - {when: {method: dino}, gpus: 4}\n"
    assert "site.yaml:4: cells > [0]: ranks is 2" in refusal(tmp_path, text, VIT)
    assert profile(tmp_path, text).ask_for(SMALL).processes == 2


def test_one_array_for_each_ask_cut_at_the_limit():
    works = [Work(f"cell-{number}", "") for number in range(7)]
    small, large = Ask(gpus=1), Ask(gpus=8)
    asks = {work.cell_id: large if number in (1, 4) else small for number, work in enumerate(works)}
    cut = [(ask, [work.cell_id[-1] for work in group]) for ask, group in chunked(works, asks, 3)]
    assert cut == [(small, ["0", "2", "3"]), (small, ["5", "6"]), (large, ["1", "4"])]


@pytest.mark.parametrize(
    "total, sizes, shares",
    [
        (64, [10, 20], [10, 20]),  # room for all
        (64, [1000, 1000, 1000], [22, 21, 21]),
        (10, [100, 1], [9, 1]),
        (4, [1, 1, 10], [1, 1, 2]),
        (2, [5, 5, 5], [1, 1, 1]),  # an array that may not run at all would never end
    ],
)
def test_what_runs_at_once_is_shared_out(total, sizes, shares):
    assert shared_out(total, sizes) == shares


def test_what_submitit_is_told():
    ask = Ask(
        partition="gpu", gres="gpu:a100:8", gpus=8, nodes=2, cpus=12, mem_gb=200, minutes=90, setup=("module load cuda",),
        extra=(("exclude", "n7"), ("exclusive", True)),
    )  # fmt: skip
    told = options(ask, threads=12, at_once=5, root=Path("/with a space"), alone=True)
    assert (told["nodes"], told["tasks_per_node"], told["cpus_per_task"], told["mem_gb"]) == (2, 8, 12, 200)
    assert (told["timeout_min"], told["slurm_partition"], told["slurm_array_parallelism"]) == (90, "gpu", 5)
    assert told["slurm_gres"] == "gpu:a100:8" and "gpus_per_node" not in told  # asked for once
    assert told["slurm_additional_parameters"] == {"requeue": True, "exclude": "n7", "exclusive": True}
    assert told["slurm_srun_args"] == ["--cpus-per-task=12", "--kill-on-bad-exit=0"]
    first, *_, last = told["slurm_setup"]
    assert first == "module load cuda"
    assert shlex.split(last)[1].startswith("PYTHONPATH=/with a space$") and last.endswith("PYTHONSAFEPATH=1")
    told = options(Ask(gpus=2, gres="nvme:1", mem_gb=0), 8, 1, ROOT, alone=False)
    assert told["gpus_per_node"] == 2 and told["slurm_gres"] == "nvme:1" and "mem_gb" not in told
    assert "SAFEPATH" not in told["slurm_setup"][-1] and "slurm_partition" not in told


def test_the_words_of_an_ask():
    assert Ask(minutes=60).words == "1 GPU, 8 CPUs, 32 GB, 60 min"
    two = Ask(gpus=8, nodes=2, cpus=4, mem_gb=100, partition="big", extra=(("exclusive", True),))
    assert two.words == "2 nodes with 8 GPUs each, 16 processes of 4 CPUs, 100 GB a node, 12 h 00, partition big, exclusive"
    assert Ask(gpus=0, nodes=2, cpus=1, mem_gb=0).words == "2 nodes with no GPU, 2 processes of 1 CPU, 12 h 00"
