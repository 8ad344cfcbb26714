"""The words of `python -m benchmark.run`: which there are, what each may be, and what it means."""

from __future__ import annotations

import argparse
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmark.errors import InputError
from benchmark.plan.document import scalar


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmark.run",
        description="Bring every cell of a sweep to its end; run it again to resume.",
        epilog="exit codes: 0 all done, 1 some cell failed, 2 bad input, 3 over budget, 4 stopped with work left",
    )
    parser.add_argument("sweep", type=Path, nargs="?", help="a file of sweeps/; with --all none")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings for every row, e.g. epochs=2")
    parser.add_argument("--profile", help="smoke, cpu, cifar10, imagenet100 or imagenet; default: what fits this machine")
    parser.add_argument("--plan", action="store_true", help="show what would run, why, and its cost; change nothing")
    parser.add_argument("--status", action="store_true", help="show where every cell stands; change nothing")
    parser.add_argument("--all", action="store_true", help="every sweep of sweeps/ at once, each shared cell once")
    parser.add_argument("--watch", action="store_true", help="with --status: look again every few seconds until all has ended")
    parser.add_argument("--launcher", choices=("local", "inline", "slurm"), default="local",
                        help="local: a pool of workers (default); inline: this process; slurm: a cluster's queue")  # fmt: skip
    parser.add_argument("--cluster", type=Path, help="a file of slurm/clusters/ (with --launcher slurm)")
    parser.add_argument("--wait", action="store_true", help="with --launcher slurm: stay until every submitted cell has ended")
    parser.add_argument("--snapshot", action="store_true",
                        help="with --launcher slurm: jobs run a copy of the code as it is now")  # fmt: skip
    parser.add_argument("--ranks", type=at_least_one, default=1, metavar="N",
                        help="processes that train a cell together, a GPU or CPU share each; default 1")  # fmt: skip
    parser.add_argument("--jobs", type=at_least_one, help="cells at once (local); default: one per GPU or per CPU core")
    parser.add_argument("--threads", type=at_least_one, help="CPU threads of a cell; default 1 on a CPU")
    parser.add_argument("--loader", choices=("auto", "ffcv", "torch", "resident"), default="auto",
                        help="how images are read; auto (default): the fastest that can be had here")  # fmt: skip
    parser.add_argument("--cell", action="append", default=[], metavar="ID", help="only this cell (may be repeated)")
    parser.add_argument("--first", action="store_true", help="only the first cell that has work left")
    parser.add_argument("--only", action="append", default=[], metavar="KEY=VALUE",
                        help="only cells with this setting, or only this row: 'row=GN + WS'")  # fmt: skip
    parser.add_argument("--seeds", help="random seeds instead of the profile's, e.g. 0,1,2")
    parser.add_argument("--until-decided", action="store_true",
                        help="add random seeds to rows whose verdict is undecided, up to --max-seeds")  # fmt: skip
    parser.add_argument("--max-seeds", type=at_least_one, metavar="K", help="with --until-decided; default 10")
    parser.add_argument("--max-failures", type=at_least_one, metavar="N",
                        help="start no more cells once this many have failed (SLURM: with --wait)")  # fmt: skip
    parser.add_argument("--mode", choices=("cached", "retry", "force"), default="cached",
                        help="retry: failed and diverged cells again; force: everything again")  # fmt: skip
    parser.add_argument("--budget", type=hours, metavar="HOURS", help="refuse to start above these device hours")
    parser.add_argument("--deadline", type=duration, help="stop with checkpoints after this long, e.g. 9m, 90s, 2h")
    parser.add_argument("--store", type=Path, default=Path(os.environ.get("RETABLE_STORE") or "runs"),
                        help="where records, checkpoints and logs are kept; default: RETABLE_STORE, else runs/")  # fmt: skip
    parser.add_argument("--data", action="append", metavar="[NAME=]PATH",
                        help="image folder, tar of one, or torchvision's CIFAR-10 folder, default: RETABLE_DATA; also "
                             "detection data, always by name: voc07=, voc0712= or coco=")  # fmt: skip
    return parser.parse_intermixed_args(argv)


def refuse_idle_words(args: argparse.Namespace) -> None:
    """InputError for a word that would do nothing without another: whoever writes it expects something of it."""
    slurm = args.launcher == "slurm"
    idle = {
        "--watch": (args.watch and not args.status, "goes with --status"),
        "--max-seeds": (args.max_seeds is not None and not args.until_decided, "goes with --until-decided"),
        "--cluster": (args.cluster is not None and not slurm, "goes with --launcher slurm"),
        "--wait": (args.wait and not slurm, "goes with --launcher slurm"),
        "--snapshot": (args.snapshot and not slurm, "goes with --launcher slurm"),
        "--max-failures": (
            args.max_failures is not None and slurm and not args.wait,
            "goes with --wait: jobs that are left to SLURM are counted by nobody",
        ),
    }
    for word, (given, why) in idle.items():
        if given:
            raise InputError(f"{word} {why}; add that, or drop {word}")
    if args.plan and args.status:
        raise InputError("--plan and --status are two questions; ask one of them")


def overrides_of(pairs: list[str]) -> dict[str, Any]:
    values = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InputError(f"command line: expected key=value such as epochs=2, found '{pair}'")
        values[key] = scalar(value)
    return values


def seeds_of(text: str | None) -> list[int] | None:
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts) or len(set(parts)) != len(parts):
        raise InputError(f"--seeds {text}: expected different whole numbers with commas, such as 0,1,2")
    return [int(part) for part in parts]


def duration(text: str) -> float:
    units = {"s": 1, "m": 60, "h": 3600}
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"expected a time such as 90s, 9m or 2h, found '{text}'")
    return float(found[1]) * units[found[2] or "s"]


def at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, found '{text}'")
    return int(text)


def hours(text: str) -> float:
    try:
        hours = float(text)
    except ValueError:
        hours = math.nan
    if not hours >= 0:
        raise argparse.ArgumentTypeError(f"expected a number of hours, found '{text}'")
    return hours
