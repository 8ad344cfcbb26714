"""Two runners started at once on one store, with two workers each: every cell runs exactly once."""

import time

import pytest

from benchmark.store.owner import read_owner
from tests.e2e.chaos import leftovers, project_in, verdict


@pytest.mark.slow
def test_each_cell_runs_once(tmp_path, cache):
    calm = project_in(tmp_path / "calm", cache, seeds=3)
    done = calm.run("--jobs", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    shared = project_in(tmp_path / "shared", cache, seeds=3)
    runners = [shared.start("--jobs", "2") for _ in range(2)]
    outputs = [runner.communicate(timeout=280)[0] for runner in runners]
    assert [runner.returncode for runner in runners] == [0, 0], outputs
    assert verdict(shared, calm) == []
    for cell in shared.cells():
        log = (cell / "log.txt").read_text()
        trains = not cell.name.startswith("random")
        assert log.count("training starts") == trains, log
        assert log.count("knn: ") == 1, log
        owner = read_owner(cell / "owner.json")
        assert owner["released"] == "done"
        assert owner["token"] == 1  # started once, by either
    assert not list(leftovers(shared))
    shares = [output.count(" done ") for output in outputs]
    assert all(share == len(shared.cells()) for share in shares), outputs  # each has seen every cell to its end
    assert len({read_owner(cell / "owner.json")["pid"] for cell in shared.cells()}) > 1


@pytest.mark.slow
def test_a_runner_waits_for_what_another_has_in_hand_and_takes_it_over_when_that_is_killed(tmp_path, cache):
    project = project_in(tmp_path / "project", cache, seeds=1)
    long = ("epochs=150", "--only", "row=byol", "--jobs", "1")
    first = project.start(*long, RETABLE_CHECKPOINT_SECONDS="0.2")
    until = time.monotonic() + 240
    while not any(project.store.glob("cells/*/checkpoint.pt")):
        assert time.monotonic() < until and first.poll() is None
        time.sleep(0.05)
    second = project.start(*long)
    time.sleep(1.0)
    first.kill()  # its worker leaves a checkpoint and goes
    first.communicate()
    output, _ = second.communicate(timeout=200)
    assert second.returncode == 0, output
    (cell,) = project.cells()
    log = (cell / "log.txt").read_text()
    assert log.count("training starts") == 1
    assert log.count("goes on at step") == 1
    assert read_owner(cell / "owner.json")["token"] == 2
