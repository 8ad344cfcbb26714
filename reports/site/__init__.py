"""The report as a folder of static pages: they work from a disk, without a network, and without JavaScript, which only adds
sorting, filters, copy buttons and the choice of light or dark.

A page is a template beside this file that extends `base.html.j2` and fills its block `content`; everything is escaped by the
template engine except our own SVG. From anywhere in the reports:

    site = Site(out, report, also=["cost.html", "methods/index.html"])    # `also`: pages of NAVIGATION that this build writes
    site.page("methods/byol.html", "method.html.j2", "BYOL", method=method)   # path, template, title (the page's h1), values

In a template `root` leads from the page to the folder of the site, so that every link is relative:

    <a href="{{ root }}{{ site.table('simsiam_stopgrad') }}">...</a>      tables/simsiam_stopgrad.html
    <a href="{{ root }}{{ site.evidence(run_id) }}">...</a>               runs/<key>.html#<run id>, all seeds of one training
    {{ chip(claim.words) }} {{ command(text) }}                             an outcome in words; a command to copy
    {% from "macros.html.j2" import arxiv, bytable %}                     see there
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cached_property, lru_cache
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from benchmark.errors import InputError
from reports.assemble import Report
from reports.table import Table

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

HERE = Path(__file__).parent
# what the bar on top of every page links to; those from the third on only where this build writes them
NAVIGATION = (
    ("index.html", "Claims"),
    ("runs/index.html", "Trainings"),
    ("methods/index.html", "Methods"),
    ("cost.html", "Cost"),
    ("speed.html", "Speed"),
    ("departures.html", "Departures"),
    ("audit.html", "Documents’ audit"),
    ("against.html", "Comparison"),
)
_ALWAYS = ("index.html", "runs/index.html")
_FOLDERS = ("tables", "runs", "methods")
_MARK = '<meta name="generator" content="Retable">'
_HERE = "@@here goes the text@@"


class Site:
    """Where pages go and how they look. files: what was written or found unchanged, relative to the folder."""

    def __init__(self, out: Path, report: Report, also: Collection[str] = ()) -> None:
        self.out, self.report = out, report
        self.navigation = [(path, label) for path, label in NAVIGATION if path in _ALWAYS or path in also]
        self.files: set[str] = set()
        self._made: set[Path] = set()
        self._shells: dict[tuple[str, str], list[str]] = {}

    @cached_property
    def environment(self) -> Environment:
        """The template engine; compiled templates are kept for the whole build."""
        from jinja2 import Environment, FileSystemLoader, StrictUndefined

        made = Environment(
            loader=FileSystemLoader(HERE),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        made.globals |= {"site": self, "navigation": self.navigation, "chip": chip, "command": command}
        return made

    def page(self, path: str, template: str, title: str, **values: Any) -> None:
        """Render a template to the page at `path`, which is relative to the site's folder."""
        made = self.environment.get_template(template).render(title=title, path=path, root=root_of(path), **values)
        self.write(path, made)

    def shell(self, path: str, title: str, body: str) -> None:
        """Write a page whose content is HTML already, for pages that come in thousands. The title is escaped here."""
        words, key = escape(title), (root_of(path), path if path in dict(self.navigation) else "")
        if key not in self._shells:
            made = self.environment.get_template("shell.html.j2").render(title=_HERE, path=path, root=key[0], content=_HERE)
            self._shells[key] = made.split(_HERE)
        before, between, above, below = self._shells[key]  # the title stands twice, the content once
        self.write(path, "".join((before, words, between, words, above, body, below)))

    def write(self, path: str, text: str) -> None:
        """Write one file of the site, unless it is there already just so. Raises InputError where that cannot be done.

        Plainly, without waiting for the disk: what is lost in a crash is built anew, and there may be thousands of pages.
        """
        self.copy(path, text.encode())

    def copy(self, path: str, content: bytes) -> None:
        """The same for a file that is not text."""
        target = self.out / path
        self.files.add(path)
        try:
            if target.parent not in self._made:
                target.parent.mkdir(parents=True, exist_ok=True)
                self._made.add(target.parent)
            try:
                if target.stat().st_size == len(content) and target.read_bytes() == content:
                    return
            except FileNotFoundError:
                pass
            target.write_bytes(content)
        except OSError as error:
            raise InputError(f"{target}: cannot be written ({error.strerror}); name another folder with --out") from error

    def finish(self) -> None:
        """Write what all pages share, and take away pages of an earlier build that nothing leads to any more."""
        for name in ("style.css", "script.js"):
            self.write(name, (HERE / name).read_text(encoding="utf-8"))
        known = [self.out / path for path, _ in NAVIGATION]
        for path in [*known, *(page for folder in _FOLDERS for page in (self.out / folder).glob("*.html"))]:
            if path.relative_to(self.out).as_posix() in self.files or not path.is_file():
                continue
            if _MARK in path.read_text(encoding="utf-8", errors="replace")[:500]:
                path.unlink()

    def has(self, path: str) -> bool:
        """Whether a file lies in the folder of the site, whoever wrote it."""
        return (self.out / path).is_file()

    def table(self, table: Table | str) -> str:
        """The page of a published table; of one of its profiles the place on that page."""
        if isinstance(table, str):
            return f"tables/{quote(table)}.html"
        return f"tables/{quote(table.id)}.html#{quote(table.slug)}"

    def evidence(self, run: str) -> str:
        """The place where the evidence of one run stands, beside the other seeds of its training."""
        return f"{self.training(self.report.runs[run].key)}#{quote(run)}"

    @staticmethod
    def training(key: str) -> str:
        """The page of all seeds of one training."""
        return f"runs/{quote(key)}.html"


@lru_cache(1 << 12)
def chip(words: str) -> Markup:
    """An outcome: `supported (direction)`, `not run`, `met`. Its colour and sign repeat the words and never replace them."""
    from markupsafe import Markup

    kind = words.split(" (")[0].split(":")[0].replace(" ", "-")
    return Markup('<span class="chip {}">{}</span>').format(kind, words)


@lru_cache(1 << 14)
def command(text: str) -> Markup:
    """A command to copy, which no line breaks between the two dashes of an option. The button is the script's."""
    from markupsafe import Markup

    words = (f"<span>{word}</span>" if word.startswith("-") else word for word in escape(text).split(" "))
    return Markup(f'<code class="command">{" ".join(words)}</code>')


def root_of(path: str) -> str:
    """How to get from a page to the site's folder: `../` for each folder it lies in."""
    return "../" * path.count("/")


def downloads(table_id: str) -> Mapping[str, str]:
    """What a table's numbers can be had as: words by file, relative to the site's folder."""
    endings = {"csv": "CSV", "json": "JSON", "md": "Markdown", "tex": "LaTeX"}
    return {f"tables/{quote(table_id)}.{ending}": words for ending, words in endings.items()}
