"""The evidence of one training, all its seeds on one page: numbers, curves, settings, machine, log, and how to run it again.

There may be thousands of these pages, so they are put together from plain strings; everything that comes from a record
goes through `escape`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from html import escape as _escape
from pathlib import Path
from typing import Any

from benchmark.plan.schema import experiment_spec, method_names
from benchmark.store.record import finite
from reports.assemble import Report
from reports.evidence import Run, log_tail
from reports.site import Site, command
from reports.site.curves import drawn
from reports.table import Entry, Row, Table

_PICTURE_BYTES = 3_000_000
escape = lru_cache(1 << 16)(_escape)  # the same few names, versions and settings stand in all of the records


@dataclass(frozen=True)
class Use:
    """A place where a training's number stands."""

    table: Table
    row: Row
    entry: Entry


def write(site: Site) -> None:
    """A page for each training with at least one record, and the list of them all."""
    used = uses(site.report)
    groups: dict[str, list[Run]] = {}
    for run in site.report.runs.values():
        groups.setdefault(run.key, []).append(run)
    shown = {table.slug for table in site.report.tables}
    lines = []
    for key, runs in groups.items():
        places = used.get(key, [])
        title = _title(runs, places)
        site.shell(site.training(key), title, "\n".join(_parts(site, runs, places, shown)))
        lines.append(_listed(site, key, title, runs, places))
    site.shell("runs/index.html", "All trainings", _list(lines, site.report))


def uses(report: Report) -> dict[str, list[Use]]:
    """Where each training is used, by its key, each row once."""
    found: dict[str, dict[tuple[str, str], Use]] = {}
    for table in report.every:
        for row in table.rows:
            for entry in row.cells:
                for run in entry.runs:
                    if run in report.runs:
                        found.setdefault(report.runs[run].key, {}).setdefault((table.slug, row.id), Use(table, row, entry))
    return {key: list(places.values()) for key, places in found.items()}


def _title(runs: Sequence[Run], places: Sequence[Use]) -> str:
    run = runs[0]
    if not places or not places[0].entry.training:
        return f"{run.method} {run.key[:12]}"
    return f"{places[0].entry.training} ({run.method}, {places[0].table.profile})"


def _parts(site: Site, runs: Sequence[Run], places: Sequence[Use], shown: set[str]) -> Iterable[str]:
    count = f"{len(runs)} seed{'s' if len(runs) > 1 else ''}"
    data = "; ".join(dict.fromkeys(run.data.shown for run in runs))
    versions = ", ".join(dict.fromkeys(str(run.version) for run in runs))
    yield f"<p>{count} of one training: <strong>{escape(runs[0].method)}</strong> version {versions} on {escape(data)}.</p>"
    if places:
        links = (
            f'<li><a href="../{site.table(use.table if use.table.slug in shown else use.table.id)}">{escape(use.table.title)}'
            f"</a> ({escape(use.table.paper)}), profile {escape(use.table.profile)}: {escape(use.row.name)}</li>"
            for use in places
        )
        yield f'<h2 id="used">Where it is used</h2><ul>{"".join(links)}</ul>'
    else:
        yield "<p>It belongs to no row of any table: its settings are those of no profile.</p>"
    yield f'<h2 id="numbers">Numbers, seed by seed</h2>{_numbers(runs)}'
    if curves := drawn([(f"seed {run.seed}", run.record.get("curves") or {}) for run in runs]):
        yield f'<h2 id="curves">Curves</h2>{curves}'
    if pictures := _pictures(site, runs):
        yield f'<h2 id="pictures">Pictures</h2>{pictures}'
    yield f'<h2 id="again">Run it again</h2>{_again(runs, places)}'
    yield f'<h2 id="settings">Settings</h2>{_settings(runs[0])}'
    yield f'<h2 id="machine">Machine and versions</h2>{_machine(runs)}'
    departures = dict.fromkeys(str(text) for run in runs for text in run.record.get("departures") or [])
    if departures:
        notes = "".join(f"<li>{escape(text)}</li>" for text in departures)
        yield f'<h2 id="departures">Departures from the paper, as recorded</h2><ul>{notes}</ul>'
    logs = "".join(
        f"<details><summary>Seed {run.seed}, <code>{escape(run.id)}</code></summary>"
        f"<pre>{escape(chr(10).join(lines))}</pre></details>"
        for run in runs
        if (lines := log_tail(run))
    )
    yield f'<h2 id="log">Last lines of the log</h2>{logs or "<p>No log lies beside the records.</p>"}'


def _grid(caption: str, header: Sequence[str], bodies: Iterable[tuple[str, Iterable[Sequence[str]]]]) -> str:
    """A table of HTML texts, in groups with a heading each ('' for none)."""
    heads = "".join(f'<th scope="col">{name}</th>' for name in header)
    parts = [
        f'<div class="scroll" tabindex="0" role="region" aria-label="{caption}">'
        f'<table class="grid"><caption>{caption}</caption>'
        f"<thead><tr>{heads}</tr></thead>"
    ]
    for heading, rows in bodies:
        parts.append("<tbody>")
        if heading:
            parts.append(f'<tr><th colspan="{len(header)}" scope="rowgroup" class="part">{heading}</th></tr>')
        for name, *cells in rows:
            parts.append(f'<tr><th scope="row">{name}</th>{"".join(f"<td>{text}</td>" for text in cells)}</tr>')
        parts.append("</tbody>")
    return "".join([*parts, "</table></div>"])


def _numbers(runs: Sequence[Run]) -> str:
    """Every number of every evaluation, a column a seed, in groups of one protocol each."""
    header = ["", *(f'seed {run.seed}<br><code id="{escape(run.id)}">{escape(run.id)}</code>' for run in runs)]
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for i, run in enumerate(runs):
        for stage, records in run.evaluations.items():
            for record in records:
                groups.setdefault((stage, repr(record.get("protocol"))), [{} for _ in runs])[i] = record
    bodies = []
    for (stage, _), records in groups.items():
        protocol = next(record for record in records if record).get("protocol")
        names = dict.fromkeys(name for record in records for name in record.get("metrics") or {})
        rows = [[escape(name), *(_number((record.get("metrics") or {}).get(name)) for record in records)] for name in names]
        if any(record.get("status") == "diverged" for record in records):
            rows.append(["status", *(escape(str(record.get("status", ""))) for record in records)])
        chosen = [_words(record.get("chosen")) for record in records]
        if any(chosen):
            rows.append(["chosen on held-out images", *map(escape, chosen)])
        bodies.append((f"{escape(stage)} <span>{escape(_words(protocol))}</span>", rows))
    bodies.sort(key=lambda body: body[0].startswith("collapse"))  # accuracies first
    rows = [["status", *("diverged" if run.diverged else "done" for run in runs)]]
    rows += [[escape(name.replace("_", " ")), *cells] for name, cells in _columns([_cost(run) for run in runs])]
    bodies.append(("training", rows))
    return _grid("Numbers of each seed", header, bodies)


def _cost(run: Run) -> dict[str, Any]:
    """How the training ended and what it took, in units to read."""
    last, timing = run.record.get("metrics") or {}, dict(run.record.get("timing") or {})
    seconds, peak = timing.pop("wall_seconds", None), timing.pop("peak_memory_bytes", None)
    found = {"last loss": last.get("loss")}
    if isinstance(seconds, int | float):
        found["training time"] = f"{seconds / 3600:.2f} h" if seconds >= 3600 else f"{seconds:.0f} s"
    if isinstance(peak, int | float):
        found["peak memory"] = f"{peak / 2**30:.2f} GiB"
    return found | timing


def _columns(values: Sequence[Mapping[str, Any]]) -> Iterable[tuple[str, list[str]]]:
    """(name, its text in each) of all names."""
    for name in dict.fromkeys(name for each in values for name in each):
        yield name, [_number(each.get(name)) for each in values]


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else "not finite"
    return "" if value is None else escape(str(value))


def _words(value: Any) -> str:
    """The entries of a small mapping in one line, without what only repeats and without whole grids."""
    if not isinstance(value, dict):
        return ""
    plain = {name: each for name, each in value.items() if name != "name" and not isinstance(each, list | dict)}
    return ", ".join(f"{name} {_short(each)}" for name, each in plain.items())


def _short(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _pictures(site: Site, runs: Sequence[Run]) -> str:
    """What evaluations drew, copied beside the pages."""
    parts = []
    for run in runs:
        for stage, records in run.evaluations.items():
            for name in dict.fromkeys(Path(str(name)).name for record in records for name in record.get("pictures") or []):
                try:
                    content = (run.folder / "evaluations" / name).read_bytes()
                except OSError:
                    continue
                if name.endswith(".png") and len(content) <= _PICTURE_BYTES:
                    target = f"runs/pictures/{run.id}-{name}"
                    site.copy(target, content)
                    words = escape(f"{stage}, seed {run.seed}")
                    parts.append(
                        f'<figure><img src="pictures/{escape(target.rpartition("/")[2])}" alt="{words}" loading="lazy">'
                        f"<figcaption>{words}</figcaption></figure>"
                    )
    return f'<div class="pictures">{"".join(parts)}</div>' if parts else ""


def _again(runs: Sequence[Run], places: Sequence[Use]) -> str:
    again = dict.fromkeys(use.entry.again for use in places if use.entry.again)
    if not again:
        return "<p>No sweep has this training any more; its settings are below.</p>"
    parts = [f"<li>{command(text)}</li>" for text in again]
    use = next(use for use in places if use.entry.again)
    for run in runs:
        text = f"{use.table.command} --cell {run.id} --mode force"
        parts.append(f"<li>seed {run.seed} alone: {command(text)}</li>")
    return f"<p>All seeds, whatever is recorded:</p><ul>{''.join(parts)}</ul>"


@cache
def _defaults(method: str) -> dict[str, Any]:
    """The default of every setting of a method by its dotted key; none for a method that is not known any more."""
    return dict(_flat(experiment_spec(method)["fields"], "default")) if method in method_names() else {}


def _flat(values: Mapping[str, Any], end: str = "") -> Iterable[tuple[str, Any]]:
    """Dotted keys with their values; of a spec (`end`: the entry of a field that holds the value) or of a config."""
    for name, value in values.items():
        if end and isinstance(value, dict) and "fields" in value:
            yield from ((f"{name}.{key}", found) for key, found in _flat(value["fields"], end))
        elif end:
            if end in value:
                yield name, value[end]
        elif isinstance(value, dict):
            yield from ((f"{name}.{key}", found) for key, found in _flat(value))
        else:
            yield name, value


def _settings(run: Run) -> str:
    """What differs from the defaults in a table, the whole config behind it."""
    known = _defaults(run.method)
    config = {name: value for name, value in run.record["config"].items() if name not in ("seed", "version", "method")}
    rows = [
        [f"<code>{escape(key)}</code>", _plain(value), _plain(known[key])]
        for key, value in _flat(config)
        if key in known and value != known[key]
    ]
    whole = "\n".join([f"{escape(key)}: {_plain(value)}" for key, value in _flat(run.record["config"])])
    table = _grid("Settings that are not the default", ["setting", "here", "default"], [("", rows)]) if rows else ""
    return f"{table}<details><summary>The whole config, seed {run.seed}</summary><pre>{whole}</pre></details>"


def _plain(value: Any) -> str:
    """A setting as it would stand in a config, escaped."""
    if isinstance(value, str):
        return escape(value)
    if isinstance(value, list | dict):
        return escape(json.dumps(finite(value), ensure_ascii=False))
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _machine(runs: Sequence[Run]) -> str:
    """Where each seed ran and with what; one column where that was the same for all."""
    found = [dict(run.record.get("provenance") or {}) for run in runs]
    names = [f"seed {run.seed}" for run in runs]
    finished = [str(each.pop("finished", "")) for each in found]
    if all(each == found[0] for each in found):
        found, names = found[:1], ["all seeds" if len(runs) > 1 else names[0]]
    flat = [dict(_flat(each)) for each in found]
    rows = [
        [escape(name.replace(".", ": ")), *("" if each.get(name) is None else _plain(each[name]) for each in flat)]
        for name in dict.fromkeys(name for each in flat for name in each)
        if any(each.get(name) is not None for each in flat)
    ]
    times = ", ".join(f"seed {run.seed} {escape(when)}" for run, when in zip(runs, finished, strict=True) if when)
    return _grid("Machine and versions", ["", *names], [("", rows)]) + (f"<p>Finished: {times}.</p>" if times else "")


def _listed(site: Site, key: str, title: str, runs: Sequence[Run], places: Sequence[Use]) -> str:
    papers = ", ".join(dict.fromkeys(use.table.title for use in places))
    seeds = ", ".join(str(run.seed) for run in runs)
    return (
        f'<tr><th scope="row"><a href="../{site.training(key)}">{escape(title)}</a></th>'
        f'<td data-label="method">{escape(runs[0].method)}</td>'
        f'<td data-label="data">{escape(", ".join(dict.fromkeys(run.data.name for run in runs)))}</td>'
        f'<td data-label="seeds">{seeds}</td><td data-label="used in">{escape(papers) or "no table"}</td></tr>'
    )


def _list(lines: Sequence[str], report: Report) -> str:
    if not lines:
        return "<p>Nothing has run yet.</p>"
    unused = f" {report.unused} of the records belong to no row of any table." if report.unused else ""
    heads = "".join(f'<th scope="col">{name}</th>' for name in ("training", "method", "data", "seeds", "used in"))
    return (
        f"<p>{len(lines)} trainings with {len(report.runs)} records, a record for each seed.{unused}</p>"
        f'<div class="scroll" tabindex="0" role="region" aria-label="All trainings"><table class="cards sortable filtered">'
        f"<caption>All trainings</caption><thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )
