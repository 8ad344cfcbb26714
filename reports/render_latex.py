"""Tables as LaTeX with booktabs: fragments to \\input, one table environment per profile and data set, and text below it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from reports import captions
from reports.grid import Grid, grid
from reports.latex_text import escape, typewriter
from reports.table import Table

HEAD = "% Needs \\usepackage{booktabs,graphicx} in the preamble of a document in UTF-8.\n"
_PAGE = 120  # characters across: of a wider grid, parts stand below one another
_HIGH = 22  # rows: what must be known about a higher table stands below it, so that it fits on a page
_LONGEST = 36  # characters of a cell of words on one line
_BROKEN = r"p{5cm}"
_FITS = 72  # characters of \small text across a page of ordinary margins; a wider table is scaled down


def render_table(table: Table) -> str:
    """A table environment, and below it as ordinary text what would make it too high for a page: claims, verdicts, commands."""
    parts = _stacked(grid(table), len(table.settings) + 1)
    heading, told = escape(captions.heading(table)), escape(" ".join(captions.caption(table)))
    high = len(parts) * len(table.rows) > _HIGH
    lines = [
        r"\begin{table}",
        r"\centering\small\setlength{\tabcolsep}{4pt}",
        rf"\caption{{{heading}.{'' if high else ' ' + told}}}",
        rf"\label{{tab:{table.slug}}}",
    ]
    for number, part in enumerate(parts):
        lines += [r"\par\smallskip"] if number else []
        lines += _tabular(part)
    if legend := captions.legend(table):
        lines += [rf"\par\smallskip\parbox{{\linewidth}}{{\footnotesize {escape(captions.joined(legend))}}}"]
    lines += [r"\end{table}"]
    if below := [*([told + r"\par"] if high else []), *_below(table)]:
        about = rf"\noindent\emph{{On Table~\ref{{tab:{table.slug}}}.}}\par"
        lines += [r"\begingroup\footnotesize\raggedright\setlength{\parindent}{0pt}", about, *below, r"\par\endgroup"]
    return "\n".join(lines) + "\n"


def _below(table: Table) -> list[str]:
    found = []
    for claim in table.claims:
        said = f"{escape(claim.says)} \\textit{{{escape(claim.verdict.sentence)}}}"
        found.append(rf"\hangindent=1em \textbf{{{escape(claim.words)}}}: {said}\par")
    found += [rf"\hangindent=1em \emph{{{escape(kind)}}}: {escape(why)}.\par" for kind, why in captions.reasons(table)]
    found += [rf"\hangindent=1em {escape(name)}: {escape(text)}.\par" for name, text in captions.remarks(table)]
    found += [rf"\hangindent=1em To fill {escape(name)}: {typewriter(text)}\par" for name, text in captions.commands(table)]
    return found


def _stacked(whole: Grid, fixed: int) -> list[Grid]:
    """The grid, or where it is too wide for a page its parts of about one width, each with the leading columns, no part
    without numbers and no published column cut in two."""
    widths = _widths(whole)
    if sum(widths) <= _PAGE or not whole.groups:
        return [whole]
    leading, rest = list(range(fixed)), list(range(fixed, len(whole.headings)))
    units = [list(members) for _, members in groupby(rest, key=lambda i: whole.headings[i].group or i)]
    wide = [sum(widths[i] for i in unit) for unit in units]
    room = max(_PAGE - sum(widths[:fixed]), max(wide))
    count = -(-sum(wide) // room)
    while len(parts := _even(units, wide, count)) > 1 and max(sum(widths[i] for i in part) for part in parts) > room:
        count += 1
    return [
        Grid(
            tuple(whole.headings[i] for i in (*leading, *part)),
            tuple(tuple(row[i] for i in (*leading, *part)) for row in whole.rows),
        )
        for part in parts
    ]


def _even(units: list[list[int]], wide: list[int], count: int) -> list[list[int]]:
    """The columns in at most `count` parts: each goes where its middle lies."""
    parts: list[list[int]] = [[] for _ in range(count)]
    before = 0
    for unit, width in zip(units, wide, strict=True):
        parts[int((before + width / 2) / sum(wide) * count)] += unit
        before += width
    return [part for part in parts if part]


def _widths(found: Grid) -> list[int]:
    """Characters across for each column, its header and the space between columns among them. A published column's name is as
    wide as paper and ours together."""
    halves = [-(-len(heading.group) // 2) for heading in found.headings]
    names = [max(map(len, _lines(heading.text))) for heading in found.headings]
    cells = [max((len(row[i]) for row in found.rows), default=0) for i in range(len(names))]
    return [max(names[i], halves[i], min(cells[i], _LONGEST)) + 2 for i in range(len(names))]


def _tabular(found: Grid) -> list[str]:
    long = _long(found)
    columns = "".join(_BROKEN if i in long else ("r" if heading.numeric else "l") for i, heading in enumerate(found.headings))
    wide = sum(_widths(found)) > _FITS
    lines = [(r"\resizebox{\linewidth}{!}{%" + "\n" if wide else "") + rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
    if found.groups:
        lines += _groups(found)
    return [
        *lines,
        " & ".join(_header(heading.text) for heading in found.headings) + r" \\",
        r"\midrule",
        *(
            " & ".join(r"\raggedright " * (i in long) + _cell(cell) for i, cell in enumerate(row)) + r" \\"
            for row in found.rows
        ),
        r"\bottomrule",
        r"\end{tabular}" + ("}" if wide else ""),
    ]


def _long(found: Grid) -> set[int]:
    """The columns of words whose cells go over several lines; never the last, in which raggedright would need another end."""
    inner = range(len(found.headings) - 1)
    return {i for i in inner if not found.headings[i].numeric and any(len(row[i]) > _LONGEST for row in found.rows)}


def _groups(found: Grid) -> list[str]:
    """The published columns' names over paper and ours, each underlined."""
    cells, rules, place = [], [], 1
    for name, members in groupby(found.headings, key=lambda heading: heading.group):
        width = len(list(members))
        if name:
            cells.append(rf"\multicolumn{{{width}}}{{c}}{{{escape(name)}}}")
            rules.append(rf"\cmidrule(lr){{{place}-{place + width - 1}}}")
        else:
            cells += [""] * width
        place += width
    return [" & ".join(cells) + r" \\", "".join(rules)]


def _header(label: str) -> str:
    lines = _lines(label)
    return rf"\shortstack[l]{{{escape(lines[0])}\\{escape(lines[1])}}}" if len(lines) > 1 else escape(label)


def _lines(label: str) -> list[str]:
    """A column's name, on two lines where it is long."""
    first, space, rest = label.partition(" ")
    return [first, rest] if space and len(label) > 10 else [label]


def _cell(display: str) -> str:
    """A cell's text; a leading [ would be taken for the argument of the line break before it."""
    text = escape(display)
    return f"{{}}{text}" if text.startswith(("[", "*")) else text


def render(tables: Sequence[Table]) -> str:
    """A whole file."""
    return HEAD + "\n".join(render_table(table) for table in tables)
