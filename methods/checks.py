"""What any config refuses, in one sentence for each kind of bad value; a method's file only names its fields."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints


def check(
    config: Any,
    *,
    positive: Iterable[str] = (),
    unit: Iterable[str] = (),
    below_one: Iterable[str] = (),
    least: Mapping[str, float] | None = None,
) -> None:
    """ValueError for the first field that has a value it cannot have.

    Fields that are typed as a Literal must be one of its values, those of `positive` above 0, of `unit` in [0, 1], of
    `below_one` in [0, 1), and those of `least` at least the number given there.
    """
    kind: Any = type(config)
    for name, allowed in _choices(kind).items():
        if getattr(config, name) not in allowed:
            raise ValueError(f"{name} must be {', '.join(allowed[:-1])} or {allowed[-1]}, not '{getattr(config, name)}'")
    for name in positive:
        if getattr(config, name) <= 0.0:
            raise ValueError(f"{name} must be positive, not {getattr(config, name)}")
    for name in unit:
        if not 0.0 <= getattr(config, name) <= 1.0:
            raise ValueError(f"{name} must be in [0, 1], not {getattr(config, name)}")
    for name in below_one:
        if not 0.0 <= getattr(config, name) < 1.0:
            raise ValueError(f"{name} must be in [0, 1), not {getattr(config, name)}")
    for name, number in (least or {}).items():
        if getattr(config, name) < number:
            raise ValueError(f"{name} must be at least {number}, not {getattr(config, name)}")


@functools.cache
def _choices(kind: type) -> dict[str, tuple[str, ...]]:
    return {name: get_args(hint) for name, hint in get_type_hints(kind).items() if get_origin(hint) is Literal}
