"""A real headless Chromium for tests: a page as it is after its scripts ran, or as a picture."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

FOUND = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"),
    *("--enable-logging=stderr", "--host-resolver-rules=MAP * ~NOTFOUND", "--allow-file-access-from-files"),
)


@dataclass(frozen=True)
class Shown:
    """dom: the document after its scripts. console: what they said, or what went wrong, a line each."""

    dom: str
    console: list[str]


def show(page: Path, profile: Path, *flags: str, script: str = "") -> Shown:
    """Load a page from disk, without any name of the network being known. `script`: run once the page's own have run; what
    it returns stands in the attribute data-said of the <html> element."""
    target = page
    if script:
        target = page.with_name(f"driven-{page.name}")
        driver = (
            f"<script>addEventListener('load', async () => {{ const said = await (async () => {{ {script} }})();"
            " document.documentElement.dataset.said = said; });</script></body>"
        )
        target.write_text(page.read_text(encoding="utf-8").replace("</body>", driver), encoding="utf-8")
    command = [str(FOUND), *_QUIET, *flags, f"--user-data-dir={profile}", "--dump-dom", target.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90)
    if script:
        target.unlink()
    return Shown(done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line])


def said(shown: Shown) -> str:
    """What the test's own script returned."""
    match = re.search(r'<html[^>]* data-said="([^"]*)"', shown.dom)
    assert match, shown.dom[:500]
    return match[1]


def framed(page: Path, profile: Path, width: int, script: str) -> str:
    """What a script returns on a page in a window of this width, which may be narrower than a browser's own can be."""
    inner, outer = page.with_name(f"framed-{page.name}"), page.with_name("frame.html")
    driver = (
        "<script>addEventListener('load', () => requestAnimationFrame(() => parent.postMessage(String((() => {"
        f" {script} }})()), '*')));</script></body>"
    )
    inner.write_text(page.read_text(encoding="utf-8").replace("</body>", driver), encoding="utf-8")
    outer.write_text(
        "<!doctype html><html><body><script>addEventListener('message', (event) => {"
        " document.documentElement.dataset.said = event.data; });</script>"
        f'<iframe src="{inner.name}" style="width:{width}px;height:900px;border:0"></iframe></body></html>',
        encoding="utf-8",
    )
    try:
        return said(show(outer, profile, "--virtual-time-budget=5000"))
    finally:
        inner.unlink()
        outer.unlink()
