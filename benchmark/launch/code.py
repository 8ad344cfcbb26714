"""Which code a job was submitted with. What runs hours later must be that code: else two cells of one table differ for a reason
that no record tells.

The submitter writes STORE/slurm/code/<fingerprint>.json (file -> digest); the job, before it does anything, looks at the
files it would run. With a snapshot the code itself lies beside that, in STORE/slurm/code/<fingerprint>/, and the job runs it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import uuid
from pathlib import Path

from benchmark.errors import InputError
from benchmark.store.provenance import SNAPSHOT, code
from benchmark.store.record import read_json, storage_error, write_json

ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = ("benchmark", "methods")
_LEFT_OUT = ("benchmark/bench/",)  # measures, and is never part of a job


def files(root: Path = ROOT) -> dict[str, str]:
    """Path from the project's folder -> 12 hex digits of its bytes, of all that a job can run or read as code."""
    found = {}
    for package in _PACKAGES:
        for path in sorted([*(root / package).rglob("*.py"), *(root / package).rglob("*.json")]):
            name = path.relative_to(root).as_posix()
            if not name.startswith(_LEFT_OUT):
                with contextlib.suppress(FileNotFoundError):  # an editor replaces files
                    found[name] = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    return found


def fingerprint(found: dict[str, str]) -> str:
    """12 hex digits of it all."""
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:12]


def _folder(store: Path) -> Path:
    return store / "slurm" / "code"


def remember(store: Path) -> str:
    """Write down what the code is now; its fingerprint."""
    found = files()
    name = fingerprint(found)
    path = _folder(store) / f"{name}.json"
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(path.parent, error) from error
        write_json(path, {"files": found})
    return name


def snapshot(store: Path) -> tuple[str, Path]:
    """Copy the code, once for each state it was in; (fingerprint, folder). A copy appears whole or not at all.

    It is named after its own content: a file saved during the copy is in it or not, but never named otherwise.
    """
    temporary = _folder(store) / f".{uuid.uuid4().hex[:8]}.new"
    try:
        temporary.mkdir(parents=True)
        for package in _PACKAGES:
            ignored = shutil.ignore_patterns("*.pyc", "*tmp*", "bench")  # compiled kernels go along: they take a minute to make
            shutil.copytree(ROOT / package, temporary / package, ignore=ignored)
        found = files(temporary)
        folder = _folder(store) / fingerprint(found)
        write_json(temporary / SNAPSHOT, code())  # records made from the copy still name the commit
        write_json(folder.with_suffix(".json"), {"files": found})
        if not folder.exists():
            with contextlib.suppress(FileExistsError):  # another submission was quicker, with the same code
                temporary.rename(folder)
    except (OSError, shutil.Error) as error:
        if isinstance(error, shutil.Error):
            raise InputError(f"{temporary}: the code cannot be copied there ({error})") from error
        raise storage_error(temporary, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder.name, folder


def changed(store: Path, submitted: str, root: Path = ROOT) -> list[str]:
    """The files that are not as they were at submission, those that came or went among them; none means the same code."""
    now = files(root)
    if fingerprint(now) == submitted:
        return []
    try:
        then = read_json(_folder(store) / f"{submitted}.json").get("files", {})
    except InputError:
        return ["(which files is not known)"]
    return sorted(name for name in {*now, *then} if now.get(name) != then.get(name))


def refusal(store: Path, submitted: str) -> str | None:
    """A sentence where the code is no longer what the cell was submitted with, else None."""
    names = changed(store, submitted)
    if not names:
        return None
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    told = f"the code has changed since this cell was submitted ({', '.join(names[:3])}{more})"
    return f"{told}; submit it again, or with --snapshot, so that a change cannot reach it"
