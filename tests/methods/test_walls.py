"""`methods` stands alone, and what planning reads of it comes without torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TORCH_FREE = [
    "methods",
    "methods.views",
    "methods.catalogue",
    "methods.encoders",
    "methods.encoders.config",
]


@pytest.mark.parametrize("module", TORCH_FREE)
def test_planning_reads_methods_without_torch(module: str) -> None:
    # -S and -I would hide the installed packages: what is asked is that nobody imports them.
    code = (
        f"import {module}, sys; from methods.catalogue import CATALOGUE; CATALOGUE(); "
        "print(sorted({'torch', 'torchvision', 'numba', 'numpy'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("path", sorted((ROOT / "methods").rglob("*.py")), ids=lambda p: p.name)
def test_methods_import_only_torch_and_themselves(path: Path) -> None:
    allowed = {"torch", "torchvision", "methods"} | set(sys.stdlib_module_names)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found = {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            found = {(node.module or "").split(".")[0]}
        else:
            continue
        assert found <= allowed, f"{path.name} imports {found - allowed}"
