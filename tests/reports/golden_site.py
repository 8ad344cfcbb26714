"""The golden tree as pages: the front page and the tables, byte for byte.

python -m tests.reports.golden_site      writes golden/site anew; look at the difference before committing it
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from reports.site import Site, front, tables
from tests.reports import toy

EXPECTED = toy.GOLDEN / "site"


def pages(folder: Path) -> dict[str, str]:
    """The text of every page, by its path in the site."""
    toy.write_store(folder / "store")
    site = Site(folder / "site", toy.report(folder / "store"))
    front.write(site)
    tables.write(site, {})
    return {name: (site.out / name).read_text(encoding="utf-8") for name in sorted(site.files)}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = pages(Path(folder))
    for path in EXPECTED.rglob("*.html"):
        path.unlink()
    for name, text in made.items():
        (EXPECTED / name).parent.mkdir(parents=True, exist_ok=True)
        (EXPECTED / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
