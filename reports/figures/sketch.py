"""What a figure shows, as data that JSON can hold: made from tables and records without any drawing."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from benchmark.store.record import finite

_DRAWN_AS = 6  # raised when a painter draws the same data otherwise, so that figures drawn before are drawn again


@dataclass(frozen=True)
class Sketch:
    """kind names the painter (`reports.figures.paint.PAINTERS`). title and says: the figure in words, for readers who do not
    see it. data: everything the painter needs; NaN as None.
    """

    name: str
    kind: str
    title: str
    says: str
    data: dict[str, Any]

    @property
    def digest(self) -> str:
        """Changes with whatever is to be seen."""
        text = json.dumps([_DRAWN_AS, self.kind, self.title, finite(self.data)], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
