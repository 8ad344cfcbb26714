"""`python -m benchmark.bench.first_batch WORK BACKEND`: one fresh process, from its start to its first batch.

WORK is a pickled `images.Work`. Prints a JSON object: the times (seconds since the epoch) at which Python had started, torch
was imported, open_loader was called and the first batch had arrived. Imports nothing early that a training would not.
"""

import json
import pickle
import sys
import time
from pathlib import Path

started = time.time()

import torch  # noqa: E402, F401 - a training has it before it opens a loader

imported = time.time()

from benchmark.bench.ours import open_ours  # noqa: E402

work = pickle.loads(Path(sys.argv[1]).read_bytes())
opening = time.time()
with open_ours(work, sys.argv[2]) as loader:
    batch = next(epoch := loader.epoch(0))
    first = time.time()
    assert len(batch.index) == work.batch
    epoch.close()  # type: ignore[attr-defined]
print(json.dumps({"started": started, "imported": imported, "opening": opening, "first": first}))
