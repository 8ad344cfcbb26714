"""What the end of a run advises: what died is resumed by the same command, what failed by itself needs --mode retry."""

import pytest

from benchmark import console
from benchmark.launch.work import Ended, Work
from benchmark.store.owner import Claim


@pytest.mark.parametrize(("released", "retry"), [("died", False), ("failed", True)])
def test_only_what_failed_by_itself_needs_the_word_retry(tmp_path, capsys, released, retry):
    folder = tmp_path / "cells" / "a-1"
    folder.mkdir(parents=True)
    claim = Claim.take(folder)
    assert claim is not None
    claim.release(released, "rank 1 of 2 was killed by SIGKILL", "node")
    console.summary([Ended(Work("a-1", "A, seed 0"), "failed", "rank 1 of 2 was killed by SIGKILL", "node")], tmp_path)
    said = " ".join(capsys.readouterr().err.split())
    assert ("--mode retry" in said) is retry
    assert "tart the same command again" in said
