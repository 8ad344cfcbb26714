"""What a user can put right: one sentence, no traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(Exception):
    """Bad input. The message is one sentence naming the file, the key path and the remedy; the exit code is 2."""


def nearest(word: object, allowed: Iterable[str]) -> str:
    """`; did you mean 'optimizer'?` or the empty string: the ending of an error about an unknown word."""
    found = difflib.get_close_matches(str(word), list(allowed), n=1, cutoff=0.6)
    return f"; did you mean '{found[0]}'?" if found else ""
