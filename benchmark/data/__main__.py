"""python -m benchmark.data convert|check|info|subset: data sets as .beton files, made once, checked, described, divided.

What `convert` makes with its defaults is what `benchmark.run` then finds. Exit codes: 0 done and whole, 1 damaged (check),
2 bad input, 4 interrupted.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmark.errors import InputError, nearest

OK, DAMAGED, BAD_INPUT, STOPPED = 0, 1, 2, 4
_SHOWN = 20  # sentences about one folder
_LINE_EVERY = 5.0  # seconds between progress lines where there is no terminal

Told = Callable[[str, int, int], None]


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmark.data",
        description="Convert data sets to .beton files, check them, describe them, choose labelled parts of them.",
        epilog="exit codes: 0 done and whole, 1 damaged, 2 bad input, 4 interrupted",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="convert|check|info|subset")

    convert = commands.add_parser("convert", help="make a data set's .beton files")
    convert.add_argument("name", metavar="NAME", help="cifar10, cifar100, stl10, tinyimagenet, imagenet100, imagenet, any name")
    convert.add_argument("--data", metavar="[NAME=]PATH",
                         help="image folder, tar of one, or folder of the original files; default: RETABLE_DATA")  # fmt: skip
    where = convert.add_mutually_exclusive_group()
    _add_cache(where)
    where.add_argument("--out", type=Path, metavar="DIR", help="a new folder instead, to be used or copied as it is")
    convert.add_argument("--storage", choices=("raw", "jpeg"),
                         help="raw: squares of one size; jpeg: JPEG files of any size, those of the source byte by byte; "
                         "default: raw for small images, jpeg for ImageNet and for what has no --resolution")  # fmt: skip
    convert.add_argument("--resolution", type=_above_zero, metavar="N", help="side of raw squares in pixels")
    convert.add_argument("--limit", type=_above_zero, default=0, metavar="N",
                         help="jpeg: make images smaller whose shorter side has more pixels than this")  # fmt: skip
    convert.add_argument("--quality", type=_above_zero, default=95, metavar="Q",
                         help="of JPEG files that have to be encoded, 1 to 100; default 95")  # fmt: skip
    convert.add_argument("--classes", type=Path, metavar="FILE", help="take these class folders alone, one a line")

    check = commands.add_parser("check", help="find damage: manifest, sizes, digests, every image's checksum")
    check.add_argument("targets", nargs="+", metavar="NAME|[NAME=]PATH", help="all conversions of a name, or a folder")
    check.add_argument("--decode", action="store_true", help="also decode every image")
    _add_cache(check)

    info = commands.add_parser("info", help="show what a conversion is and where it came from")
    info.add_argument("targets", nargs="*", metavar="NAME|[NAME=]PATH", help="default: everything in the cache")
    _add_cache(info)

    subset = commands.add_parser("subset", help="write the image names of a labelled share, the same number of every class")
    subset.add_argument("target", metavar="NAME|[NAME=]PATH", help="a name with one conversion, or a folder")
    subset.add_argument("--share", required=True, help="of the labelled training images, e.g. 1%% or 10%%")
    subset.add_argument("--seed", type=int, default=0, help="random seed of the choice; default 0")
    subset.add_argument("--out", type=Path, required=True, metavar="FILE")
    _add_cache(subset)
    return parser.parse_args(argv)


def _add_cache(parser: argparse._ActionsContainer) -> None:
    store = Path(os.environ.get("RETABLE_STORE") or "runs")
    default = Path(os.environ.get("RETABLE_CACHE") or store / "data")
    parser.add_argument("--cache", type=Path, default=default, metavar="DIR",
                        help="where conversions are; default: RETABLE_CACHE, or data/ in RETABLE_STORE or runs/")  # fmt: skip


def _above_zero(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, found '{text}'")
    return int(text)


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments(argv)
    try:
        return {"convert": _convert, "check": _check, "info": _info, "subset": _subset}[args.command](args)
    except InputError as error:
        _error(str(error))
        return BAD_INPUT
    except KeyboardInterrupt:
        print("interrupted; nothing was kept", file=sys.stderr)
        return STOPPED
    except BrokenPipeError:  # whoever reads the output (`head`) has seen enough; Python must not fail again when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return STOPPED


def _convert(args: argparse.Namespace) -> int:
    from benchmark.data import datasets

    source = datasets.find(args.name, _given(args.name, args.data), args.cache, args.classes)
    if source.name != args.name:  # nobody who asks for a conversion wants the stand-in's
        raise InputError(source.notice or f"{args.name} is not there")
    if source.notice:
        _say(f"notice: {source.notice}")
    wishes = {"storage": args.storage, "quality": args.quality, "limit": args.limit}
    done = None if args.out else datasets.prepared(source, args.cache, args.resolution, **wishes)
    if done and not datasets.prepared(source, args.cache, args.resolution, **wishes, closely=True):
        _say(f"notice: the images in {source.path} have changed since they were converted; converting them again")
        done = None
    if done:
        _say("converted already:")
        _describe(done.train.parent)
    else:
        start = time.monotonic()
        with _progress() as told:
            if args.out:
                settings = datasets.settings_of(args.name, args.resolution, **wishes)
                done = datasets.convert_into(source, args.out, args.cache, settings, told)
            else:
                done = datasets.prepare(source, args.cache, args.resolution, told, **wishes, closely=True)
        if done.name != args.name:  # the download has failed just now
            raise InputError(done.note)
        seconds, images = time.monotonic() - start, sum(done.counts.values())
        _describe(done.train.parent)
        _say(f"{images:,} images converted in {seconds:.1f} s ({images / seconds:,.0f} images/s)")
    _say(f"use it with: python -m benchmark.run SWEEP --data {done.name}={done.train.parent.resolve()}")
    return OK


def _check(args: argparse.Namespace) -> int:
    from benchmark.data.check import damage, notes

    folders = [folder for target in args.targets for folder in _folders(target, args.cache)]
    whole = True
    for folder in dict.fromkeys(folders):
        start, found = time.monotonic(), 0
        with _progress() as told:
            for sentence in damage(folder, args.decode, told):
                found += 1
                if found <= _SHOWN:
                    _error(sentence)
        for sentence in notes(folder):
            _say(f"note: {sentence}")
        if found > _SHOWN:
            _error(f"and {found - _SHOWN:,} more")
        how = "every image decoded, " if args.decode else ""
        _say(f"{folder}: {f'{found:,} damaged' if found else 'whole'} ({how}{time.monotonic() - start:.1f} s)")
        whole = whole and not found
    return OK if whole else DAMAGED


def _info(args: argparse.Namespace) -> int:
    folders = [folder for target in args.targets for folder in _folders(target, args.cache)]
    if not args.targets:
        folders = sorted(path.parent for path in args.cache.glob("*/manifest.json"))
        if not folders:
            raise InputError(f"{args.cache} holds no conversions; make one with python -m benchmark.data convert NAME")
    for number, folder in enumerate(dict.fromkeys(folders)):
        if number:
            _say("")
        _describe(folder)
    return OK


def _subset(args: argparse.Namespace) -> int:
    from benchmark.data.manifest import read_manifest
    from benchmark.data.subset import labelled_subset, subset_names

    folders = _folders(args.target, args.cache)
    if len(folders) > 1:
        listed = ", ".join(str(folder) for folder in folders)
        raise InputError(f"{args.target} is converted {len(folders)} times ({listed}); give one of the folders")
    made = read_manifest(folders[0])
    assert made is not None
    if Path(args.share).exists():
        raise InputError(f"--share {args.share} is a file; give a share such as 1%")
    chosen = labelled_subset(made.dataset, args.share, args.seed)
    names = subset_names(made.dataset, chosen)
    try:
        args.out.write_text("".join(f"{name}\n" for name in names), errors="surrogateescape")
    except OSError as error:
        raise InputError(f"--out {args.out} cannot be written ({error.strerror}); choose another file") from None
    classes = len(made.dataset.classes)
    _say(
        f"{len(names):,} of {made.dataset.counts['train']:,} training images, {len(names) / classes:.4g} a class, in {args.out}"
    )
    return OK


def _given(name: str, text: str | None) -> Path | None:
    """--data, or what RETABLE_DATA says about this data set."""
    asked = text or os.environ.get("RETABLE_DATA") or ""
    of, path = _named(asked)
    if not asked or (of and of != name and not text):
        return None
    if of == name:
        return Path(path)
    if of:
        raise InputError(f"--data {asked} is of {of}, but {name} is to be converted; give the images of {name}")
    return None if name == "shapes" and not text else Path(asked)


def _named(text: str) -> tuple[str, str]:
    """[NAME=]PATH as name and path; the name is "" where none is meant: a path may have = in it."""
    from benchmark.data.manifest import NAMES

    name, equals, path = text.partition("=")
    return (name, path) if equals and NAMES.fullmatch(name) and not Path(text).exists() else ("", text)


def _folders(target: str, cache: Path) -> list[Path]:
    """The converted folder given as [NAME=]PATH, or all conversions of the name in the cache."""
    from benchmark.data.manifest import read_manifest

    name, path = _named(target)
    folder = Path(path).expanduser()
    if (folder / "manifest.json").exists():
        try:
            made = read_manifest(folder, complete=False)
        except InputError:  # whoever uses the folder says so
            return [folder]
        if made and name and made.dataset.name != name:
            raise InputError(f"{folder} holds {made.dataset.name} converted, not {name}; give it by its own name")
        return [folder]
    conversions = {path.parent: path.parent.name for path in cache.glob("*/manifest.json")}
    pattern = re.compile(r"(.+)-(?:\d+|jpeg\d*)-[0-9a-f]{10}")
    names = {path: found[1] for path, name in conversions.items() if (found := pattern.fullmatch(name))}
    chosen = sorted(path for path, name in names.items() if name == target)
    if chosen:
        return chosen
    if folder.is_dir():
        raise InputError(f"{folder} has no manifest.json: it is not a whole conversion; convert the data set again")
    raise InputError(
        f"{target} is neither a converted folder nor converted in {cache}; convert it with "
        f"python -m benchmark.data convert{nearest(target, names.values())}"
    )


def _describe(folder: Path) -> None:
    from benchmark.data.manifest import read_manifest

    made = read_manifest(folder)
    if made is None:
        raise InputError(f"{folder} has no manifest.json; convert the data set again")
    of, size = made.dataset, sum(file.bytes for file in made.files.values())
    counts = ", ".join(f"{count:,} {split}" for split, count in of.counts.items())
    some = ", ".join(of.classes[:4]) + (", ..." if len(of.classes) > 4 else "")
    stored = f"raw, {of.size} x {of.size} pixels"
    if of.storage == "jpeg":
        encoded = sum(made.reencoded.values())
        limit = f"shorter side at most {made.limit} pixels" if made.limit else "sizes as they are"
        stored = f"JPEG files, {limit}, {encoded:,} re-encoded" + (f" at quality {made.quality}" if encoded else "")
    files = [f"{name}  {file.bytes:,} bytes  sha256 {file.sha256[:16]}" for name, file in made.files.items()]
    for key, text in {
        "data set": of.name,
        "folder": str(folder),
        "images": f"{counts}; {size / 2**20:,.1f} MiB",
        "classes": f"{len(of.classes)}: {some}",
        "stored": stored,
        "source": f"{of.note}{f' in {made.source}' if made.source else ''}",
        "mean, std": "  ".join(" ".join(f"{value:.4f}" for value in values) for values in (of.mean, of.std)),
        "content": of.content,
        "converted": made.created,
        "files": f"\n{'':11}".join(files),
    }.items():
        _say(f"{key:<11}{text}")


@contextmanager
def _progress() -> Iterator[Told]:
    """A bar with images/s and the time left; where there is no terminal, a line now and then."""
    from rich import progress

    if not sys.stdout.isatty():
        yield _plain_lines()
        return
    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[rate]}"),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns) as bar:
        tasks: dict[str, progress.TaskID] = {}

        def told(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total, rate="")
            speed = bar.tasks[tasks[what]].speed
            bar.update(tasks[what], completed=done, rate=f"{speed:,.0f} images/s" if speed else "")

        yield told


def _plain_lines() -> Told:
    begun: dict[str, float] = {}
    last = 0.0

    def told(what: str, done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        start = begun.setdefault(what, now)
        if done < total and now - max(last, start) < _LINE_EVERY:
            return
        last = now
        rate = done / max(now - start, 1e-3)
        left = "" if done >= total or now == start else f", {rate:,.0f} images/s, {(total - done) / rate:,.0f} s left"
        _say(f"{what}: {done:,} of {total:,} images{left}")

    return told


def _say(text: str) -> None:
    print(text, flush=True)


def _error(text: str) -> None:
    from rich.console import Console
    from rich.markup import escape

    Console(stderr=True, highlight=False, soft_wrap=True).print(f"[red]error:[/red] {escape(text)}")


if __name__ == "__main__":
    sys.exit(main())
