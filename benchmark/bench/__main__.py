"""See the package. Exit code 0 whatever the numbers are; 2 with one sentence for bad input."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from benchmark.bench import record
from benchmark.bench.loading import QUICK, Effort
from benchmark.bench.record import Outcome
from benchmark.bench.show import show
from benchmark.errors import InputError

OK, BAD_INPUT, STOPPED = 0, 2, 130
PARTS = ("loader", "startup", "memory", "step", "health", "knn", "plan", "overhead", "report")


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmark.bench",
        description="Measure loaders and training steps beside what people use, in turns, on the same cores.",
    )
    parser.add_argument("--only", choices=PARTS, action="append", help="only this part (may be repeated)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the record there, e.g. into reports/records/bench/")
    parser.add_argument(
        "--quick", action="store_true", help="some minutes instead of twenty: everything runs, numbers mean nothing"
    )
    parser.add_argument("--data", metavar="[cifar10=]PATH", default=os.environ.get("RETABLE_DATA"),
                        help="CIFAR-10, as benchmark.run takes it; default: RETABLE_DATA, else drawn images")  # fmt: skip
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="photographs as JPEG files; default: drawn images")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="for converted images; default: RETABLE_CACHE or runs/data")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments(argv)
    try:
        return _main(args)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        return STOPPED


def _main(args: argparse.Namespace) -> int:
    from benchmark.bench import loading, memory, startup

    store = os.environ.get("RETABLE_STORE") or "runs"
    cache = (args.cache or Path(os.environ.get("RETABLE_CACHE") or Path(store) / "data")).resolve()
    cache.mkdir(parents=True, exist_ok=True)
    effort, repetitions, epochs = (QUICK, 1, 4) if args.quick else (Effort(), 3, memory.EPOCHS)
    outcome, images, parts = Outcome(), dict[str, str](), args.only or PARTS
    console, begin = Console(stderr=True, highlight=False), time.monotonic()
    with console.status("") as status:

        def announce(text: str) -> None:
            if console.is_terminal:
                status.update(text)
            else:  # a log
                console.print(f"{time.monotonic() - begin:4.0f} s  {text}", markup=False)

        for part in PARTS:
            if part not in parts:
                continue
            if part == "loader":
                found, words = loading.run(args.data, args.images, cache, effort, announce)
            elif part == "step":
                from benchmark.bench import steps

                found, words = steps.run(steps.QUICK if args.quick else steps.Effort(), announce), {}
            elif part == "health":
                from benchmark.bench import health, steps

                found, words = health.run(steps.QUICK if args.quick else steps.Effort(), announce), {}
            elif part == "knn":
                from benchmark.bench import knn

                found, words = knn.run(knn.QUICK if args.quick else knn.Effort(), announce), {}
            elif part == "plan":
                from benchmark.bench import planning

                found, words = planning.run(planning.QUICK if args.quick else planning.Effort(), announce), {}
            elif part == "overhead":
                from benchmark.bench import overhead

                found, words = overhead.run(cache, overhead.QUICK if args.quick else overhead.Effort(), announce), {}
            elif part == "report":
                from benchmark.bench import reporting

                found, words = reporting.run(reporting.QUICK if args.quick else reporting.Effort(), announce), {}
            elif part == "startup":
                found, words = startup.run(args.data, cache, repetitions, announce)
            else:
                found, words = memory.run(args.data, cache, effort.small_batch, announce, epochs)
            outcome.add(found)
            images |= words
    settings = {"quick": args.quick, "parts": list(parts), **asdict(effort), "starts": repetitions, "epochs": epochs}
    finished = record.assemble(outcome, images, settings)
    if args.json is not None:
        record.write(args.json, finished)
    show(finished, Console(highlight=False))
    return OK


if __name__ == "__main__":
    sys.exit(main())
