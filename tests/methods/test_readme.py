"""The README's example of a method without the rest: twenty lines that run as they stand."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
AFTER = """
import math, sys
assert features.shape == (256, 128) and features.isfinite().all()
assert math.isfinite(loss.item()) and loss.item() < first and logs["std"] > 0.1, (first, loss, logs)
assert not {"benchmark", "reports"} & set(sys.modules)
print("ran")
"""


def test_the_example_trains_a_method_in_a_plain_loop(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8").split("### Use a method alone")[1]
    example = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert example is not None
    lines = example[1].splitlines()
    assert sum(map(bool, lines)) <= 20 and max(map(len, lines)) <= 128
    watched = example[1].replace("    optimizer.zero_grad()", "    if k == 0: first = loss.item()\n    optimizer.zero_grad()")
    script = tmp_path / "example.py"
    script.write_text("import torch; torch.manual_seed(0); torch.set_num_threads(1)\n" + watched + AFTER)
    out = subprocess.run([sys.executable, script], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert out.stdout == "ran\n", out.stderr
