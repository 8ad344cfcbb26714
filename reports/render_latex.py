"""Tables as LaTeX with booktabs: fragments to \\input, one table environment per profile and data set."""

from __future__ import annotations

from collections.abc import Sequence

from reports import captions
from reports.table import Table

HEAD = "% Needs \\usepackage{booktabs,graphicx} in the preamble of a document in UTF-8.\n"
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
    columns = "".join("r" if column.numeric else "l" for column in table.columns)
    wide = sum(max(len(row.cells[i].display) for row in table.rows) + 2 for i in range(len(table.columns))) > _FITS
    note = r"\par\smallskip\begin{minipage}{\linewidth}\footnotesize"
    lines = [
        r"\begin{table}",
        r"\centering\small\setlength{\tabcolsep}{4pt}",
        rf"\caption{{{escape(captions.heading(table))}. {escape(' '.join(captions.caption(table)))}}}",
        rf"\label{{tab:{table.slug}}}",
        (r"\resizebox{\linewidth}{!}{%" + "\n" if wide else "") + rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        " & ".join(_header(column.header) for column in table.columns) + r" \\",
        r"\midrule",
        *(" & ".join(_cell(cell.display) for cell in row.cells) + r" \\" for row in table.rows),
        r"\bottomrule",
        r"\end{tabular}" + ("}" if wide else ""),
    ]
    if legend := captions.legend(table):
        lines += [note, escape(". ".join(legend) + "."), r"\end{minipage}"]
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
