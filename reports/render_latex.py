"""Tables as LaTeX with booktabs: fragments to \\input, one table environment per profile and data set."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from reports import captions
from reports.grid import Grid, grid
from reports.table import Table

HEAD = "% Needs \\usepackage{booktabs,graphicx} in the preamble of a document in UTF-8.\n"
_PAGE = 110  # characters across: of a wider grid, parts stand below one another
_FITS = 78  # characters of \small text across a page of ordinary margins; a wider table is scaled down
_ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "%": r"\%",
    "&": r"\&",
    "#": r"\#",
    "$": r"\$",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}",
    "±": r"$\pm$",
    "√": r"$\surd$",
    "·": r"$\cdot$",
    "†": r"$^{\dagger}$",
    "‡": r"$^{\ddagger}$",
    "²": r"$^{2}$",
    "×": r"$\times$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "–": "--",
    "—": "---",
    "’": "'",
    "“": "``",
    "”": "''",
    "…": r"\ldots{}",
    "τ": r"$\tau$",
    "λ": r"$\lambda$",
    "μ": r"$\mu$",
    "→": r"$\to$",
    "≠": r"$\neq$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "α": r"$\alpha$",
    "ε": r"$\varepsilon$",
    "γ": r"$\gamma$",
    "Δ": r"$\Delta$",
    "−": "-",
    "\u00a0": "~",
}
# Straight quotes have their own commands only with other font encodings; in running text the ordinary characters do.
_ESCAPES |= {'"': "''", "'": "'", "`": "`"}


def escape(text: str) -> str:
    """The text with every character that LaTeX would interpret made literal; what no basic font has becomes `?`."""
    return "".join(_ESCAPES.get(letter, letter if ord(letter) < 0x180 else "?") for letter in " ".join(text.split()))


def _typewriter(text: str) -> str:
    """A command line: upright quotes, and breaks allowed after spaces and slashes."""
    quoted = escape(text).replace("'", r"\char39 ").replace("--", r"-{}-")
    return r"\texttt{" + quoted.replace("/", r"/\allowbreak ") + "}"


def render_table(table: Table) -> str:
    """One table environment with the claims as a second tabular beneath."""
    note = r"\par\smallskip\begin{minipage}{\linewidth}\footnotesize"
    lines = [
        r"\begin{table}",
        r"\centering\small\setlength{\tabcolsep}{4pt}",
        rf"\caption{{{escape(captions.heading(table))}. {escape(' '.join(captions.caption(table)))}}}",
        rf"\label{{tab:{table.slug}}}",
    ]
    for number, part in enumerate(_stacked(grid(table), len(table.settings) + 1)):
        lines += [r"\par\smallskip"] if number else []
        lines += _tabular(part)
    if legend := captions.legend(table):
        lines += [note, escape(captions.joined(legend)), r"\end{minipage}"]
    if table.claims:
        lines += [
            r"\par\smallskip\footnotesize",
            r"\begin{tabular}{p{0.16\linewidth}p{0.38\linewidth}p{0.38\linewidth}}",
            r"\toprule",
            r"outcome & the paper says & why \\",
            r"\midrule",
            *(
                r"\raggedright "
                + " & ".join(map(escape, (claim.words, claim.says, claim.verdict.sentence)))
                + r" \tabularnewline"
                for claim in table.claims
            ),
            r"\bottomrule",
            r"\end{tabular}",
        ]
    below = [rf"\emph{{{escape(kind)}}}: {escape(why)}.\\" for kind, why in captions.reasons(table)]
    below += [rf"{escape(name)}: {escape(text)}.\\" for name, text in captions.remarks(table)]
    below += [rf"\raggedright To fill {escape(name)}: {_typewriter(text)}\\" for name, text in captions.commands(table)]
    if below:
        lines += [note, *below, r"\end{minipage}"]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _stacked(whole: Grid, fixed: int) -> list[Grid]:
    """The grid, or where it is too wide for a page its parts, each with the leading columns and without halves."""
    widths = _widths(whole)
    if sum(widths) <= _PAGE:
        return [whole]
    leading, rest = list(range(fixed)), list(range(fixed, len(whole.headings)))
    room = max(_PAGE - sum(widths[:fixed]), _PAGE // 2)
    parts: list[list[int]] = [[]]
    for _, members in groupby(rest, key=lambda i: whole.headings[i].group or i):
        together = list(members)
        if parts[-1] and sum(widths[i] for i in (*parts[-1], *together)) > room:
            parts.append([])
        parts[-1] += together
    return [
        Grid(
            tuple(whole.headings[i] for i in (*leading, *part)),
            tuple(tuple(row[i] for i in (*leading, *part)) for row in whole.rows),
        )
        for part in parts
    ]


def _widths(found: Grid) -> list[int]:
    """Characters across for each column, its header and the space between columns among them."""
    return [max([7, *(len(row[i]) for row in found.rows)]) + 2 for i in range(len(found.headings))]


def _tabular(found: Grid) -> list[str]:
    columns = "".join("r" if heading.numeric else "l" for heading in found.headings)
    wide = sum(_widths(found)) > _FITS
    lines = [(r"\resizebox{\linewidth}{!}{%" + "\n" if wide else "") + rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
    if found.groups:
        lines += _groups(found)
    return [
        *lines,
        " & ".join(_header(heading.text) for heading in found.headings) + r" \\",
        r"\midrule",
        *(" & ".join(_cell(cell) for cell in row) + r" \\" for row in found.rows),
        r"\bottomrule",
        r"\end{tabular}" + ("}" if wide else ""),
    ]


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
    """A column's name, stacked where it is long."""
    first, space, rest = label.partition(" ")
    return rf"\shortstack[l]{{{escape(first)}\\{escape(rest)}}}" if space and len(label) > 10 else escape(label)


def _cell(display: str) -> str:
    """A cell's text; a leading [ would be taken for the argument of the line break before it."""
    text = escape(display)
    return f"{{}}{text}" if text.startswith(("[", "*")) else text


def render(tables: Sequence[Table]) -> str:
    """A whole file."""
    return HEAD + "\n".join(render_table(table) for table in tables)
