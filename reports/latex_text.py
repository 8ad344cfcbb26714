"""Any text as LaTeX that says the same, whatever engine and font encoding the document has.

Letters with accents become accent commands and symbols formulas, because neither pdflatex's default fonts nor a plain lualatex
has all of them; what cannot be said with basic fonts becomes `?` and never an error.
"""

from __future__ import annotations

import re
import unicodedata

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
    "`": r"\textasciigrave{}",
    '"': "''",  # the straight one is in few font encodings
    "–": "--",
    "—": "---",
    "‑": "-",
    "−": "-",
    "‘": "`",
    "’": "'",
    "“": "``",
    "”": "''",
    "«": "``",
    "»": "''",
    "…": r"\ldots{}",
    "•": r"\textbullet{}",
    "\u00a0": "~",
    "\u200b": "{}",  # nothing, of no width
    "§": r"\S{}",
    "©": r"\copyright{}",
    "ß": r"\ss{}",
    "æ": r"\ae{}",
    "Æ": r"\AE{}",
    "œ": r"\oe{}",
    "Œ": r"\OE{}",
    "ø": r"\o{}",
    "Ø": r"\O{}",
    "ł": r"\l{}",
    "Ł": r"\L{}",
    "ı": r"\i{}",
    "†": r"$^{\dagger}$",
    "‡": r"$^{\ddagger}$",
    "°": r"$^{\circ}$",
    "¹": r"$^{1}$",
    "²": r"$^{2}$",
    "³": r"$^{3}$",
    "′": r"$'$",
}
_FORMULAS = {
    **{"±": "pm", "√": "surd", "·": "cdot", "×": "times", "÷": "div", "≤": "le", "≥": "ge", "≠": "neq", "≈": "approx"},
    **{"→": "to", "←": "leftarrow", "↔": "leftrightarrow", "↑": "uparrow", "↓": "downarrow", "⇒": "Rightarrow", "∞": "infty"},
    **{"∈": "in", "∼": "sim", "≪": "ll", "≫": "gg", "∇": "nabla", "∂": "partial", "∑": "sum", "ℓ": "ell", "∥": "Vert"},
    **{"µ": "mu", "¬": "neg", "∝": "propto", "⊕": "oplus", "✓": "surd", "✗": "times"},
}
_ACCENTS = {
    **{"\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u", "\u0307": ".", "\u0308": '"'},
    **{"\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0327": "c"},
}
# The Greek letters that are not Latin ones; Unicode's names are TeX's commands, but for lambda.
_FORMULAS |= {letter: unicodedata.name(letter).split()[-1].lower() for letter in "αβγδεζηθικμνξπρστυφχψω"} | {"λ": "lambda"}
_FORMULAS |= {letter: unicodedata.name(letter).split()[-1].title() for letter in "ΓΔΘΞΠΣΥΦΨΩ"} | {"Λ": "Lambda"}
_ESCAPES |= {letter: rf"$\{command}$" for letter, command in _FORMULAS.items()}


def escape(text: str) -> str:
    """The text on one line with every character that LaTeX would interpret made literal, and no two hyphens made a dash."""
    return "".join(map(_letter, _flat(text)))


def typewriter(text: str) -> str:
    """A command line: upright quotes, and breaks allowed after spaces and slashes."""
    quotes = {"'": r"\char39 ", '"': r"\char34 ", "/": r"/\allowbreak "}
    return r"\texttt{" + "".join(quotes.get(letter) or _letter(letter) for letter in _flat(text)) + "}"


def _flat(text: str) -> str:
    return re.sub(r"-(?=-)", "-\u200b", unicodedata.normalize("NFC", " ".join(text.split())))


def _letter(letter: str) -> str:
    if letter in _ESCAPES:
        return _ESCAPES[letter]
    if letter.isascii():
        return letter if letter.isprintable() else "?"
    base, *marks = list(unicodedata.normalize("NFD", letter))
    if base.isascii() and base.isalpha():
        accent = _ACCENTS.get(marks[0], "") if len(marks) == 1 else ""
        return rf"\{accent}{{{base}}}" if accent else base
    plain = unicodedata.normalize("NFKD", letter)
    return "".join(_ESCAPES.get(each, each) for each in plain) if plain.isascii() and plain.isprintable() else "?"
