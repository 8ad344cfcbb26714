"""A reader of generated pages that notes what is wrong with them: for tests of the site."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

VOID = ("meta", "link", "br", "img", "input", "hr", "area", "base", "col", "embed", "source", "track", "wbr")
LOADS = ("link", "script", "img", "iframe", "source", "object", "embed", "video", "audio", "use", "image")
# what may not stand in a paragraph, because a browser would end the paragraph before it
BLOCKS = {"p", "div", "ul", "ol", "dl", "table", "section", "h1", "h2", "h3", "pre", "figure", "details", "header", "main"}


class Page(HTMLParser):
    """What a page holds, and `wrong`: a sentence for each thing that a browser or a screen reader would stumble over."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.loads: list[str] = []
        self.labels: list[str] = []
        self.count: dict[str, int] = {}
        self.open: list[str] = []
        self.wrong: list[str] = []
        self._caption = True
        self.feed(text)
        self.close()
        self._whole(text)

    def _whole(self, text: str) -> None:
        if self.open:
            self.wrong.append(f"never closed: {', '.join(self.open)}")
        for tag in ("h1", "main", "title", "footer"):
            if self.count.get(tag) != 1:
                self.wrong.append(f"{self.count.get(tag, 0)} {tag} elements")
        if not text.startswith("<!doctype html>\n<html lang="):
            self.wrong.append("no doctype or language")
        twice = {name for name in self.ids if self.ids.count(name) > 1}
        if twice:
            self.wrong.append(f"ids given twice: {', '.join(sorted(twice))}")
        self.wrong += [f"nothing has the id {name}" for name in self.labels if name not in self.ids]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if "svg" not in self.open:  # a drawing's parts may have titles of their own
            self.count[tag] = self.count.get(tag, 0) + 1
        given = dict(attrs)
        if len(given) < len(attrs):
            self.wrong.append(f"{tag} has an attribute twice")
        if given.get("id"):
            self.ids.append(str(given["id"]))
        if "id" in given and (not given["id"] or " " in str(given["id"])):
            self.wrong.append(f"{tag} has the id '{given['id']}'")
        for name in ("href", "src", "xlink:href"):
            if name in given:
                (self.loads if tag in LOADS else self.links).append(str(given[name]))
        self.labels += str(given.get("aria-labelledby") or "").split()
        self._check(tag, given)
        if tag in BLOCKS and "p" in self.open:
            self.wrong.append(f"{tag} in a paragraph")
        if not self._caption and tag in ("thead", "tbody"):
            self.wrong.append("a table without a caption")
            self._caption = True
        self._caption = tag == "caption" or (self._caption and tag != "table")
        if tag not in VOID:
            self.open.append(tag)

    def _check(self, tag: str, given: dict[str, str | None]) -> None:
        if tag == "th" and "scope" not in given:
            self.wrong.append("a heading of a table without scope")
        if tag == "img" and not given.get("alt"):
            self.wrong.append("a picture without words")
        if tag == "svg" and not any(given.get(f"aria-{name}") for name in ("label", "labelledby", "hidden")):
            self.wrong.append("a drawing without words")
        if tag == "section" and not given.get("aria-labelledby"):
            self.wrong.append("a section without a name")
        if tag == "button":
            self.wrong.append("a button that does nothing without a script")
        if any(name.startswith("on") for name in given):
            self.wrong.append(f"{tag} runs a script of its own")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"{tag} closed out of order")


def faults(folder: Path) -> list[str]:
    """What is wrong with the pages below a folder: in themselves, in what they load, and in where their links lead."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        where = path.relative_to(folder)
        found += [f"{where}: {text}" for text in page.wrong]
        found += [f"{where}: loads {link}" for link in page.loads if urlsplit(link).scheme or link.startswith("//")]
        for link in [*page.loads, *page.links]:
            parts = urlsplit(link)
            if parts.scheme in ("http", "https") and link not in page.loads:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if parts.scheme or not target.is_file() or not target.is_relative_to(folder.resolve()):
                found.append(f"{where}: {link} leads nowhere")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids:
                found.append(f"{where}: {link} leads to no place on that page")
    return found
