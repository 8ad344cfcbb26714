"""SIGKILL again and again at moments when work is under way; the whole of it, with 200 kills, is `make chaos`."""

import json
import shutil

import pytest
import torch

from tests.e2e.chaos import Chaos, project_in, verdict


@pytest.mark.slow
def test_kills_at_busy_moments_lose_and_change_nothing(tmp_path, cache):
    calm = project_in(tmp_path / "calm", cache, seeds=2)
    done = calm.run("--jobs", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    chaos = Chaos(tmp_path, cache, seeds=2, seed=11)
    chaos.run(KILLS)
    assert chaos.count == KILLS
    assert chaos.verdict(calm) == []
    _the_verdict_sees_what_is_wrong(chaos, calm)


KILLS = 10  # some seconds each, where torch is imported anew


def _the_verdict_sees_what_is_wrong(chaos, calm):
    """The same store, with one thing wrong at a time."""
    project = chaos.projects[-1]
    cell = project.cell("contrastive")
    path = cell / "record.json"
    text = path.read_text()
    path.write_text(text[:-20])
    assert any("corrupt" in words for words in verdict(project, calm))
    record = json.loads(text)
    record["metrics"]["loss"] += 1e-7
    path.write_text(json.dumps(record))
    assert any("metrics differs" in words for words in verdict(project, calm))
    path.unlink()
    assert any("lost" in words for words in verdict(project, calm))
    path.write_text(text)
    state = torch.load(cell / "checkpoint.pt", weights_only=True)
    first = next(iter(state["method"].values()))
    first[(0,) * first.dim()] += 1e-6
    kept = (cell / "checkpoint.pt").read_bytes()
    torch.save(state, cell / "checkpoint.pt")
    assert any("checkpoint.method" in words for words in verdict(project, calm))
    (cell / "checkpoint.pt").write_bytes(kept)
    assert verdict(project, calm) == []
    shutil.copytree(cell, cell.with_name("contrastive-000000000000"))
    assert any("too many" in words for words in verdict(project, calm))
